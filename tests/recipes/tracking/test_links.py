from __future__ import annotations

import json
import shlex
import socket
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from analogsim.recipes.tracking import links

TRAINING = "workflowType=machine_learning"  # without it MLflow opens the pages for GenAI


@dataclass(frozen=True)
class Stored:
    run_id: str
    experiment_id: str = "1"
    uri: str = "sqlite:////data/mlflow.db"


def test_pages_of_a_database_are_served_on_this_machine() -> None:
    uri = "sqlite:////data/mlflow.db"
    assert links.ui_address(uri) == "http://127.0.0.1:5000"
    assert links.experiment_link(uri, "3") == f"http://127.0.0.1:5000/#/experiments/3/runs?{TRAINING}"
    assert links.run_link(Stored("ab"), 5001) == f"http://127.0.0.1:5001/#/experiments/1/runs/ab?{TRAINING}"
    assert links.experiments_link(uri, 5001) == f"http://127.0.0.1:5001/#/experiments?{TRAINING}"
    shared = links.experiment_link(uri, "3", view="a view")
    assert shared == f"http://127.0.0.1:5000/#/experiments/3/runs?{TRAINING}&viewStateShareKey=a%20view"


def test_pages_of_a_server_are_on_it_and_need_no_command() -> None:
    uri = "https://me:secret@mlflow.example:8443/base/"
    assert (
        links.run_link(Stored("ab", "2", uri), 5001)
        == f"https://me:***@mlflow.example:8443/base/#/experiments/2/runs/ab?{TRAINING}"
    )
    assert links.ui_command(uri) == ""


def test_the_command_says_what_is_not_the_default_here(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = f"sqlite:///{alone}/mlflow.db", "sqlite:////my data/mlflow.db"
    assert links.ui_command(here) == "analogsim ui"
    assert links.ui_command(here, 5001) == "analogsim ui --port 5001"
    assert shlex.split(links.ui_command(there)) == ["analogsim", "ui", "--uri", there]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", there)
    assert links.ui_command(there) == "analogsim ui"
    assert links.ui_command(here) == f"analogsim ui --uri {here}"
    assert "secret" not in links.ui_command("postgresql://me:secret@host/mlflow")


def test_the_compare_link_names_runs_and_experiments() -> None:
    link = links.compare_link([Stored("a"), Stored("b"), Stored("c", "2")])
    page, _, query = urlsplit(link).fragment.partition("?")
    assert link.startswith("http://127.0.0.1:5000/#/")
    assert page == "/compare-runs"
    assert '"' not in link
    asked = parse_qs(query)
    assert [json.loads(asked[name][0]) for name in ("runs", "experiments")] == [["a", "b", "c"], ["1", "2"]]
    assert link.endswith(f"&{TRAINING}")


def test_runs_of_several_stores_have_no_page_in_common() -> None:
    with pytest.raises(ValueError, match="runs of one store to compare, got 2 runs in"):
        links.compare_link([Stored("a"), Stored("b", uri="http://server")])
    with pytest.raises(ValueError, match="got 0 runs"):
        links.compare_link([])


def test_a_page_is_opened_only_where_something_answers(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with pytest.raises(ConnectionError, match=f"nothing answers at http://127.0.0.1:{closed_port} .*: analogsim ui"):
        links.open_page(f"http://127.0.0.1:{closed_port}/#/experiments")
    assert opened == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = f"http://127.0.0.1:{server.getsockname()[1]}/#/experiments"
        links.open_page(link)
    assert opened == [link]
