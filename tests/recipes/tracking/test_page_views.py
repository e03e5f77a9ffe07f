from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

from analogsim.recipes.tracking.page_views import as_tag, state, view_link


@dataclass(frozen=True)
class Somewhere:
    run_id: str = "abc"
    experiment_id: str = "7"
    uri: str = "http://host:5000"


def unpacked(value: str) -> tuple[str, dict[str, Any]]:
    """The name and the state of a view."""
    view = json.loads(value)
    assert set(view) == {"name", "createdAt", "updatedAt", "state"}
    kind, _, packed = view["state"].partition(";")
    assert kind == "deflate"
    return view["name"], json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_view_is_written_as_mlflow_reads_it() -> None:
    content = state("charts", "tags.a = 'b'", ["metrics.`m`"], [])
    key, value = as_tag("mine", "My view", content)
    assert key == "mlflow.sharedViewState.mine"
    assert unpacked(value) == ("My view", content)
    assert "orderByKey" not in content
    ordered = state("", "", [], [], order="metrics.`m`")
    assert (ordered["orderByKey"], ordered["orderByAsc"]) == ("metrics.`m`", False)
    assert state("", "", [], [], order="metrics.`m`", lowest_first=True)["orderByAsc"] is True


def test_a_link_to_a_view() -> None:
    link = view_link(Somewhere(), "mine", charts=True)
    assert link.startswith("http://host:5000/#/experiments/7/runs?")
    assert "viewStateShareKey=mine" in link
    assert link.endswith("&compareRunsMode=CHART")
    # MLflow ignores a view whose link says how to search or to sort
    assert not re.search("searchFilter|orderBy", link)
