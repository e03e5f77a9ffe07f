"""Views of MLflow's page of runs: columns, order and charts that a link opens with.

MLflow keeps what its button "Share" makes as a tag of the experiment, ``mlflow.sharedViewState.<key>``, with the state
of the page as JSON in it. A link that names the key opens the page in that state. So do we write it. (MLflow from 3.15
on; read off its pages, there is no interface for it.)
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Sequence
from typing import Any

from analogsim.recipes.tracking.links import PORT, Stored, experiment_link
from analogsim.recipes.tracking.mlflow_private import view_tag

_SECTION = "analogsim"
_CHART = {"metricSectionId": _SECTION, "runsCountToCompare": 100, "deleted": False, "isGenerated": False}
_LINE = {
    **_CHART,
    **{"type": "LINE", "xAxisKey": "step", "yAxisKey": "metric", "scaleType": "linear", "range": {}},
    **{"useGlobalXaxisKey": False, "useGlobalLineSmoothing": False, "lineSmoothness": 0, "displayPoints": True},
}


def metric(name: str) -> str:
    """A metric as a column."""
    return f"metrics.`{name}`"


def param(name: str) -> str:
    """A parameter as a column."""
    return f"params.`{name}`"


def tag(name: str) -> str:
    """A tag as a column."""
    return f"tags.`{name}`"


def curve(name: str, *, log: bool = False) -> dict[str, Any]:
    """A chart of a metric over its steps, logarithmic for drift curves, whose steps are seconds."""
    return {**_LINE, "uuid": name, "metricKey": name, "xAxisScaleType": "log" if log else "linear"}


def coordinates(params: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """Parallel coordinates of parameters and metrics; the last metric gives the colour."""
    axes = {"selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": False}
    return {**_CHART, "uuid": "coordinates", "type": "PARALLEL", **axes}


def state(
    title: str,
    runs: str,
    columns: Sequence[str],
    charts: Sequence[dict[str, Any]],
    order: str | None = None,
    *,
    lowest_first: bool = False,
) -> dict[str, Any]:
    """The state of the page of runs.

    Args:
        title: of the charts.
        runs: which runs, as a filter of MLflow.
        columns: from `metric`, `param` and `tag`.
        charts: from `curve` and `coordinates`.
        order: the column to sort by, the largest value first; default: by time.
        lowest_first: the other way round.
    """
    return {
        "searchFilter": runs,
        **({} if order is None else {"orderByKey": order, "orderByAsc": lowest_first}),
        "selectedColumns": list(columns),
        # else they stand in an order of MLflow's own, with their names cut
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", "duration", *columns],
        "columnWidths": {"attributes.`Run Name`": 320, **{column: _width(column) for column in columns}},
        "runsHiddenMode": "SHOW_ALL",  # else only the first ten runs are drawn
        "compareRunCharts": list(charts),
        "compareRunSections": [
            # two charts beside one another, where MLflow would have three with room for one digit
            {"uuid": _SECTION, "name": title, "display": True, "isReordered": False, "columns": 2, "cardHeight": 420}
        ],
        "isAccordionReordered": True,  # else MLflow's own sections come first
    }


def _width(column: str) -> int:
    """Pixels for a column's name, or what usually stands in it."""
    name = column.split("`")[1]
    return max(120, 7 * len(name) + 16)


def as_tag(key: str, name: str, content: dict[str, Any]) -> tuple[str, str]:
    """The experiment's tag that keeps a view: its key and its value.

    Args:
        key: of the view, as in `view_link`.
        name: under which MLflow lists it.
        content: from `state`.
    """
    packed = base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()
    now = int(time.time() * 1000)
    value = {"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    return view_tag(key), json.dumps(value)


def view_link(run: Stored, key: str, *, charts: bool = False, port: int = PORT) -> str:
    """The page of a view of the experiment that `run` is in, as a table or as charts."""
    page = experiment_link(run.uri, run.experiment_id, port, key)
    return f"{page}&compareRunsMode=CHART" if charts else page


def view_in(value: str) -> tuple[str, dict[str, Any], int] | None:
    """What `as_tag` wrote: the name, the state and when it was made (ms); None of what is not of that form."""
    try:
        view = json.loads(value)
        kind, _, packed = view["state"].partition(";")
        content = json.loads(zlib.decompress(base64.b64decode(packed, validate=True)))
        name, made = str(view["name"]), int(view["createdAt"])
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return None
    return (name, content, made) if kind == "deflate" and isinstance(content, dict) else None
