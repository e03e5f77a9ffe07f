"""The pages that show a study, in a browser: MLflow's runs, charts and comparison, and optuna-dashboard.

They need Chromium with its driver, selenium, and what the recipes need. Every test keeps a picture of its page, also in
the folder that ANALOGSIM_SCREENSHOTS names.
"""

from __future__ import annotations

import base64
import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.slow

PATIENCE = 90.0  # seconds until a server answers or a page shows what is wanted
WINDOW = "1900,1100"  # the tables draw only the columns in sight

NAME = "lenet5-pcm"
PARAMETERS = ["noise.end", "noise.shape", "optimization.lr"]
RESULTS = ["search/accuracy/clean", "search/accuracy/drifted_1d", "search/accuracy/drifted_1y"]
SECONDS = [1, 3600, 86400, 2_592_000, 31_536_000]


def fake_study(folder: Path) -> tuple[str, str, str]:
    """Make a study of twelve trials, three of them pruned and one failed.

    Returns:
        MLflow's store, Optuna's storage, and the link to the trials.
    """
    import optuna
    from mlflow.entities import Metric, Param

    from analogsim.recipes import _store

    uri, storage = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db"
    client = _store.connect(uri)
    experiment = _store.experiment_id(client, "digits", uri)
    parent = client.create_run(experiment, run_name=NAME).info.run_id
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(study_name=NAME, storage=storage, sampler=sampler, direction="maximize")
    draw = random.Random(0)
    now = int(time.time() * 1000)
    for number in range(12):
        trial = study.ask()
        values = {
            "noise.end": trial.suggest_float("noise.end", 0.0, 4.0),
            "noise.shape": trial.suggest_categorical("noise.shape", ["constant", "linear", "cosine"]),
            "optimization.lr": trial.suggest_float("optimization.lr", 1e-4, 1e-1, log=True),
        }
        state = "PRUNED" if number in (3, 6, 9) else "FAIL" if number == 5 else "COMPLETE"
        tags = {"mlflow.parentRunId": parent, "optuna.trial.number": str(number)}
        run = client.create_run(experiment, run_name=f"{NAME}/{number}", tags=tags).info.run_id
        loss = 0.01 * (values["noise.end"] - 2) ** 2 + 0.02 * (math.log10(values["optimization.lr"]) + 2) ** 2
        metrics = []
        for epoch in range(8 if state == "COMPLETE" else 3):
            clean = (0.99 - loss) * (1 - math.exp(-(epoch + 1) / 2))
            drifted = clean - 0.02 - 0.01 * draw.random()
            metrics += [Metric("validation/accuracy/clean", clean, now, epoch)]
            metrics += [Metric("validation/accuracy/drifted_1d", drifted, now, epoch)]
            trial.report(drifted, epoch)
        if state == "COMPLETE":
            clean = 0.99 - loss
            curve = [clean - 0.003 * (1 + math.log10(second)) for second in SECONDS]
            metrics += [Metric("search/accuracy/drift", y, now, s) for s, y in zip(SECONDS, curve, strict=True)]
            scalars = dict(zip(RESULTS, (clean, curve[2], curve[4]), strict=True)) | {"objective": curve[2]}
            metrics += [Metric(name, value, now, 0) for name, value in scalars.items()]
            study.tell(trial, curve[2])
        else:
            study.tell(trial, state=optuna.trial.TrialState[state])
        constant = {"model": "lenet5", "optimization.epochs": "8"}
        params = [Param(key, str(value)) for key, value in {**values, **constant}.items()]
        client.log_batch(run, metrics=metrics, params=params, synchronous=True)
        client.set_tag(run, "optuna.trial.state", state)
        client.set_terminated(run, {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}[state])
    client.set_terminated(parent)
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.study-{parent}", saved_view(NAME, view(parent)))
    page = f"/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=study-{parent}"
    return uri, storage, f"http://127.0.0.1:5000{page}"


def view(parent: str) -> dict[str, Any]:
    """What MLflow's page of runs shows of a study: the best trial first, what was searched, and the curves."""
    columns = ["metrics.`objective`", "tags.`optuna.trial.state`"]
    columns += [f"metrics.`{name}`" for name in RESULTS] + [f"params.`{name}`" for name in PARAMETERS]
    section = "study"
    chart = {"metricSectionId": section, "runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    line = chart | {"type": "LINE", "xAxisKey": "step", "useGlobalXaxisKey": False, "useGlobalLineSmoothing": False}
    line |= {"lineSmoothness": 0, "scaleType": "linear", "range": {}, "yAxisKey": "metric", "displayPoints": True}
    coordinates = {"selectedParams": PARAMETERS, "selectedMetrics": ["objective"], "showAllRuns": False}
    charts = [chart | {"uuid": "searched", "type": "PARALLEL"} | coordinates]
    curves = {"search/accuracy/drift": "log", "validation/accuracy/drifted_1d": "linear"}
    charts += [line | {"uuid": name, "metricKey": name, "xAxisScaleType": axis} for name, axis in curves.items()]
    return {
        "searchFilter": f"tags.mlflow.parentRunId = '{parent}'",
        "orderByKey": "metrics.`objective`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": ["attributes.`Run Name`", "runDateAndNestInfo", "duration", *columns],
        "columnWidths": {column: max(100, 7 * len(column.split("`")[1]) + 16) for column in columns},
        "runsHiddenMode": "SHOW_ALL",  # by itself only the first ten runs are drawn
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": section, "name": f"Study {NAME}", "display": True, "isReordered": False}],
        "isAccordionReordered": True,  # our section stays before those that MLflow makes of the metrics' names
    }


def saved_view(name: str, state: dict[str, Any]) -> str:
    """The value of the experiment's tag that makes `state` a view with a name and a link."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    now = int(time.time() * 1000)
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"})


@dataclass(frozen=True)
class Study:
    """Where a study is kept, and what it consists of."""

    folder: Path
    uri: str
    storage: str
    link: str
    experiment: str
    parent: str
    trials: dict[str, Any]  # run id -> run, in the order of their start

    @property
    def page(self) -> str:
        """The link without the address, which is another one here."""
        return self.link[self.link.index("/#/") :]

    @property
    def completed(self) -> dict[str, Any]:
        return {run_id: run for run_id, run in self.trials.items() if run.info.status == "FINISHED"}


@pytest.fixture(scope="module")
def browser() -> Iterator[tuple[str, str]]:
    """Chromium and its driver, where everything that these tests need is installed; no settings from outside."""
    for package in ("mlflow", "optuna"):
        pytest.importorskip(package, reason="needs analogsim-torch[recipes]")
    pytest.importorskip("selenium", reason="needs selenium: pip install selenium")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Chromium and chromedriver on the PATH (Debian: chromium, chromium-driver)")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "http_proxy", "HTTP_PROXY"):
            patch.delenv(name, raising=False)
        yield program, driver


@pytest.fixture(scope="module")
def study(browser: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Study:
    from analogsim.recipes import _store

    folder = tmp_path_factory.mktemp("study")
    uri, storage, link = fake_study(folder)
    client = _store.connect(uri)
    (experiment,) = {each.experiment_id for each in client.search_experiments() if each.name != "Default"}
    runs = client.search_runs([experiment], order_by=["attributes.start_time"])
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in runs if "mlflow.parentRunId" in run.data.tags}
    trials = {run.info.run_id: run for run in runs if run.info.run_id != parent}
    return Study(folder, uri, storage, link, experiment, parent, trials)


@pytest.fixture(scope="module")
def mlflow(study: Study) -> Iterator[str]:
    """The address of MLflow's pages."""
    from analogsim.recipes import ui

    with ui.serve(study.uri, port=0) as server:
        yield server.address


@pytest.fixture(scope="module")
def dashboard(study: Study) -> Iterator[str]:
    """The address of optuna-dashboard."""
    pytest.importorskip("optuna_dashboard", reason="needs optuna-dashboard: pip install optuna-dashboard")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    serve = "import sys, optuna_dashboard; optuna_dashboard.run_server(sys.argv[1], '127.0.0.1', int(sys.argv[2]))"
    log = study.folder / "dashboard.log"
    with log.open("wb") as output:
        command = [sys.executable, "-c", serve, study.storage, str(port)]
        process = subprocess.Popen(command, cwd=study.folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(address):
            assert process.poll() is None, f"optuna-dashboard ended: {log.read_text()}"
            assert time.monotonic() < deadline, f"optuna-dashboard does not answer: {log.read_text()}"
            time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=10):
            return True
    except URLError:
        return False


class Page:
    """A browser window; what is asked of it is asked until it holds, or for PATIENCE seconds."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def script(self, body: str, *arguments: Any) -> Any:
        return self.driver.execute_script(body, *arguments)

    def texts(self, selector: str) -> list[str]:
        return self.script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())", selector
        )

    def click(self, selector: str) -> None:
        def found() -> None:
            assert self.script("return document.querySelector(arguments[0]) !== null", selector), f"no {selector}"

        self.until(found)
        self.script("document.querySelector(arguments[0]).click()", selector)

    def until(self, check: Callable[[], None]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return check()
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def rows(self) -> list[str]:
        """Names of the runs in MLflow's table, from top to bottom."""
        return self._cells(".ag-pinned-left-cols-container", "attributes.`Run Name`")

    def column(self, name: str) -> list[str]:
        """A column of MLflow's table, from top to bottom."""
        return self._cells(".ag-center-cols-container", name)

    def _cells(self, part: str, column: str) -> list[str]:
        rows = self.script(
            """return [...document.querySelectorAll(`${arguments[0]} .ag-row`)].map(row => [
                Number(row.getAttribute("row-index")),
                [...row.querySelectorAll(".ag-cell")].find(cell => cell.getAttribute("col-id") === arguments[1]),
            ]).map(([index, cell]) => [index, (cell?.querySelector("a") ?? cell)?.textContent.trim() ?? ""])""",
            part,
            column,
        )
        return [text for _, text in sorted(rows)]

    def curves(self, metric: str) -> dict[str, Any]:
        """The chart of a metric: the type of its x axis, and the x of each run (by its id)."""
        return self.script(
            """for (const card of document.querySelectorAll("[data-testid=experiment-view-compare-runs-card]")) {
                const plot = card.querySelector(".js-plotly-plot");
                if (!card.textContent.includes(arguments[0]) || !plot?._fullLayout) continue;
                return {axis: plot._fullLayout.xaxis.type, x: Object.fromEntries(plot.data.map(t => [t.uuid, t.x]))};
            } return {}""",
            metric,
        )

    def errors(self, address: str) -> list[str]:
        """What the console holds of errors; reading empties it."""
        severe = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        expected = (
            f"{address}/ajax-api/2.0/mlflow/users/current - ",  # who is there? 404 where there are no accounts
            "https://",  # the web is out of reach here
        )
        harmless = "ResizeObserver loop completed with undelivered notifications"  # drawn in the next frame instead
        return [message for message in severe if not message.startswith(expected) and harmless not in message]


@pytest.fixture
def page(browser: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """A new window, whose last page is kept as a picture under the name of the test."""
    from selenium import webdriver

    program, driver = browser
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "headless",
        "no-sandbox",  # containers have no user namespaces to build one of
        "disable-gpu",
        "enable-unsafe-swiftshader",  # WebGL by software: plotly's parallel coordinates are drawn with it
        "disable-background-networking",
        "disable-component-update",
        "no-first-run",
        "no-proxy-server",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"window-size={WINDOW}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        # on the first visit MLflow opens its assistant over a third of the page
        greeted = "try { localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true') } catch {}"
        window.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": greeted})
        yield Page(window)
        picture = tmp_path / f"{request.node.name.removeprefix('test_')}.png"
        window.save_screenshot(str(picture))
        if folder := os.environ.get("ANALOGSIM_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, folder)
    finally:
        window.quit()


def test_trials(study: Study, mlflow: str, page: Page) -> None:
    """The link of a study shows its trials, the best first, with what was searched and what came out."""
    page.driver.get(mlflow + study.page)
    best = sorted(study.completed.values(), key=lambda run: -run.data.metrics["objective"])

    def shown() -> None:
        headers = set(page.texts(".ag-header-cell"))
        assert {"objective", *RESULTS, *PARAMETERS, "optuna.trial.state"} <= headers
        rows = page.rows()
        assert len(rows) == len(study.trials) == 12
        assert rows[: len(best)] == [run.info.run_name for run in best]
        states = [run.data.tags["optuna.trial.state"] for run in study.trials.values()]
        assert sorted(page.column("tags.`optuna.trial.state`")) == sorted(states)
        values = [float(text) for text in page.column("metrics.`objective`")[: len(best)]]
        assert values == pytest.approx([run.data.metrics["objective"] for run in best])
        assert page.column("params.`noise.shape`")[0] == best[0].data.params["noise.shape"]

    page.until(shown)
    assert page.errors(mlflow) == []


def test_nested(study: Study, mlflow: str, page: Page) -> None:
    """Without the view a study is one row, which opens to its trials."""
    page.driver.get(f"{mlflow}/#/experiments/{study.experiment}/runs?workflowType=machine_learning")

    def one_row() -> None:
        assert page.rows() == [NAME]

    def opened() -> None:
        rows = page.rows()
        assert rows[0] == NAME
        assert set(rows[1:]) == {run.info.run_name for run in study.trials.values()}

    page.until(one_row)
    page.click(f'.ag-row[row-id="{study.parent}"] button')
    page.until(opened)
    assert page.errors(mlflow) == []


def test_charts(study: Study, mlflow: str, page: Page) -> None:
    """The charts of the view: parallel coordinates of what was searched, and drift curves over a logarithmic axis."""
    page.driver.get(mlflow + study.page + "&compareRunsMode=CHART")

    def drawn() -> None:
        assert page.texts(".parcoords svg text.label") == [*PARAMETERS, "objective"]
        drift = page.curves("search/accuracy/drift")
        assert drift == {"axis": "log", "x": dict.fromkeys(study.completed, SECONDS)}
        epochs = page.curves("validation/accuracy/drifted_1d")
        assert epochs["axis"] == "linear"
        assert epochs["x"].keys() == study.trials.keys()

    page.until(drawn)
    assert page.errors(mlflow) == []


def test_comparison(study: Study, mlflow: str, page: Page) -> None:
    """The page that compares chosen runs draws parallel coordinates of what differs."""
    chosen = _compare(study, mlflow, page)

    def drawn() -> None:
        axes = page.texts(".pcp-plot .axis-title")
        assert axes[:-1] == PARAMETERS  # the first three that differ, by their names
        assert axes[-1] in study.trials[chosen[0]].data.metrics
        links = page.script("return [...document.querySelectorAll('a')].map(a => a.hash)")
        assert {f"#/experiments/{study.experiment}/runs/{run_id}" for run_id in chosen} <= set(links)

    page.until(drawn)
    assert page.errors(mlflow) == []


def test_curves_of_chosen_runs(study: Study, mlflow: str, page: Page) -> None:
    """From the comparison a click on the metric leads to the drift curves of the same runs."""
    chosen = _compare(study, mlflow, page)
    page.click("a[href*='search%2Faccuracy%2Fdrift%22&']")

    def drawn() -> None:
        assert page.curves("search/accuracy/drift").get("x") == dict.fromkeys(chosen, SECONDS)

    page.until(drawn)
    assert page.errors(mlflow) == []


def _compare(study: Study, mlflow: str, page: Page) -> list[str]:
    chosen = list(study.completed)[:4]
    runs, experiments = (quote(json.dumps(each)) for each in (chosen, [study.experiment]))
    page.driver.get(f"{mlflow}/#/compare-runs?runs={runs}&experiments={experiments}")
    return chosen


def test_dashboard_study(study: Study, dashboard: str, page: Page) -> None:
    """optuna-dashboard opens the study by its name, with the history of the objective."""
    page.driver.get(f"{dashboard}/dashboard/studies/1")
    pruned = [run for run in study.trials.values() if run.info.status == "KILLED"]

    def drawn() -> None:
        assert any(NAME in text for text in page.texts("header, h1, h2, h3, h4, h5, h6, nav"))
        assert {"History", "Hyperparameter Importance", "Intermediate values"} <= set(page.texts("h6"))
        values = page.script(
            "return document.querySelector('#plot-history')?.data?.flatMap(t => t.mode === 'markers' ? t.y : []) ?? []"
        )
        assert len(values) == len(study.completed) + len(pruned)
        for run in study.completed.values():
            assert pytest.approx(run.data.metrics["objective"]) in values

    page.until(drawn)
    assert page.errors(dashboard) == []


def test_dashboard_trials(study: Study, dashboard: str, page: Page) -> None:
    """optuna-dashboard lists all trials."""
    page.driver.get(f"{dashboard}/dashboard/studies/1/trials")

    def listed() -> None:
        texts = page.texts("p, span")
        assert f"{len(study.trials)} Trials" in texts
        assert texts.count("Complete") >= len(study.completed)

    page.until(listed)
    assert page.errors(dashboard) == []
