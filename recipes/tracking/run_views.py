"""How MLflow's pages show runs: all of an experiment as a list with their scores, and some of them side by side.

Both are views that the experiment keeps, see `page_views`; where a store does not take them, its own pages have to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from analogsim.integrations.metric_names import drifted, score_name
from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.links import PORT, Stored, check_one_store, compare_link, experiment_link
from analogsim.recipes.tracking.mlflow_private import EXPERIMENT_KIND, view_tag
from analogsim.recipes.tracking.page_views import as_tag, coordinates, curve, metric, param, state, view_in, view_link

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUNS = "analogsim"
"""The key of the view that lists an experiment's runs."""

_BESIDE = "side-by-side-"
_KEPT = 100  # views of runs side by side in an experiment, whose tags come with every page of it
_SCORES = 16  # columns of them in a list
_FACTS = ("training", "device", "model")
_DRIFT = re.compile(r"(.+)/drift(?:_p\d+)?")
_DRIFTED = re.compile(r"(.+)/drifted_[^_/]+")


def list_scores(run: Stored, metric_name: str, times: Sequence[str]) -> None:
    """Have the list of an experiment's runs show training, device, and the scores on test data.

    What the list shows already stays; a store that does not take the view keeps MLflow's own columns.

    Args:
        run: of the experiment.
        metric_name: by which its networks are judged.
        times: labels of the times whose mean and spread are shown.
    """
    ends = ["clean", *(f"{drifted(time)}{end}" for time in dict.fromkeys(times) for end in ("", "_std"))]
    scores = [score_name("test", metric_name, end) for end in ends]
    drift = score_name("test", metric_name, "drift")
    with contextlib.suppress(*stores.errors()):
        client = stores.connect(run.uri)
        tags = client.get_experiment(run.experiment_id).tags
        if EXPERIMENT_KIND[0] not in tags:  # one that an earlier version has made
            client.set_experiment_tag(run.experiment_id, *EXPERIMENT_KIND)
        before = view_in(tags.get(view_tag(RUNS), "")) or ("", {}, 0)
        content = _joined(before[1], scores, drift)
        if content is not None:
            client.set_experiment_tag(run.experiment_id, *as_tag(RUNS, "analogsim: all runs", content))


def list_link(run: Stored, port: int = PORT) -> str:
    """The page that lists the runs of an experiment, with their scores where `list_scores` has come through."""
    tags: Container[str] = ()
    with contextlib.suppress(*stores.errors()):
        tags = stores.connect(run.uri).get_experiment(run.experiment_id).tags
    return listed(run.uri, run.experiment_id, tags, port)


def listed(uri: str, experiment_id: str, tags: Container[str], port: int = PORT) -> str:
    """The same of an experiment whose tags are known."""
    return experiment_link(uri, experiment_id, port, RUNS if view_tag(RUNS) in tags else "")


def _joined(before: dict[str, Any], scores: Sequence[str], drift: str) -> dict[str, Any] | None:
    """The state of the list with these scores besides what it shows; None where it shows them."""
    wanted, shown = [*map(metric, scores)], list(before.get("selectedColumns", ()))
    if set(wanted) <= set(shown):
        return None
    more = [column for column in shown if column.startswith("metrics.") and column not in wanted]
    facts = [*map(param, _FACTS)]
    others = [column for column in shown if not column.startswith("metrics.") and column not in facts]
    chart = curve(drift, log=True)
    charts = [chart, *(each for each in before.get("compareRunCharts", ()) if each.get("uuid") != chart["uuid"])]
    return state("drift", "", [*facts, *[*wanted, *more][:_SCORES], *others], charts)


def side_by_side(
    runs: Sequence[Stored], names: Sequence[str], *, title: str, params: Sequence[str] = (), port: int = PORT
) -> str:
    """The page that shows runs beside one another: their drift curves, then parallel coordinates of their scores.

    It is a view that the experiment keeps. Runs without curves, runs of several experiments and those of a store that
    does not take it have MLflow's own page.

    Args:
        runs: of one store.
        names: of their metrics.
        title: of the view, as MLflow lists it.
        params: in which they differ, for the coordinates.
        port: where ``analogsim ui`` serves a database.

    Raises:
        ValueError: the runs are in several stores, or there are none.
    """
    check_one_store(runs)
    curves = [name for name in names if _DRIFT.fullmatch(name)]
    own = compare_link(runs, port)
    if len({run.experiment_id for run in runs}) != 1 or not curves:
        return own
    ids = sorted({run.run_id for run in runs})
    key = _BESIDE + hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16]
    view = as_tag(key, title[:100], _beside(ids, curves, names, title, params))
    try:
        client = stores.connect(runs[0].uri)
        _make_room(client, runs[0].experiment_id, view[0])
        client.set_experiment_tag(runs[0].experiment_id, *view)
    except stores.errors():
        return own
    return view_link(runs[0], key, charts=True, port=port)


def _beside(
    ids: Sequence[str], curves: Sequence[str], names: Sequence[str], title: str, params: Sequence[str]
) -> dict[str, Any]:
    judged = dict.fromkeys(name.rpartition("/")[0] for name in curves)
    scores = {part: _scores_of(part, names) for part in judged}
    clean, *means = scores[next(iter(judged))]
    axes = dict.fromkeys([clean, *means[:1], *means[-1:]])  # more would have no room for their names
    columns = [each for part in scores.values() for name in part for each in (name, f"{name}_std") if each in names]
    drawn = [curve(name, log=True) for name in curves]
    return state(
        title,
        f"attributes.run_id IN ({', '.join(repr(each) for each in ids)})",
        [*map(param, dict.fromkeys([*_FACTS, *params])), *map(metric, columns)],
        [drawn[0], coordinates(params, list(axes)), *drawn[1:]],
    )


def _scores_of(part: str, names: Sequence[str]) -> list[str]:
    """The clean score of a part such as ``test/accuracy``, and its means after each time."""
    means = [name for name in names if name.startswith(f"{part}/") and _DRIFTED.fullmatch(name)]
    return [f"{part}/clean", *means]


def _make_room(client: MlflowClient, experiment_id: str, mine: str) -> None:
    """Delete the oldest views of runs side by side where there are too many beside `mine`."""
    tags = client.get_experiment(experiment_id).tags
    made = {
        name: (view_in(value) or ("", {}, 0))[2]
        for name, value in tags.items()
        if name.startswith(view_tag(_BESIDE)) and name != mine
    }
    for name in sorted(made, key=lambda each: made[each])[: max(0, len(made) + 1 - _KEPT)]:
        client.delete_experiment_tag(experiment_id, name)
