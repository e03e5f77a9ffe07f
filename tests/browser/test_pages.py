"""The pages that show runs and studies, in a browser: MLflow's, optuna-dashboard's and our own.

They need Chromium with its driver, selenium, and what the recipes need. Every test keeps a picture of its page, also in
the folder that ANALOGSIM_SCREENSHOTS names.
"""

from __future__ import annotations

import contextlib
import html
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
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

NAME = "a-study"
TRIALS = 12
ROLES = ("study", "trial", "final")
PARAMETERS = ["noise.end", "noise.shape", "optimization.lr"]
RESULTS = ["search/accuracy/clean", "search/accuracy/drifted_1d", "search/accuracy/drifted_1y"]
SECONDS = [1, 3600, 86400, 2_592_000, 31_536_000]


SETTINGS = [
    "model=mlp",
    "data.limit=200",
    "data.validation=0.3",
    "optimization.epochs=3",
    "evaluation.chips=2",
    "study.chips=2",
    f"study.name={NAME}",
    f"study.trials={TRIALS}",
    "study.pruner='median(n_startup_trials=4, n_warmup_steps=0)'",
    "search={noise={end={low=0.5, high=8.0}, shape=['linear', 'constant', 'cosine']}}",
    "search.optimization.lr={low=0.0001, high=0.05, log=true}",
]


PAIR = [
    "model=mlp",
    "data.limit=200",
    "optimization.epochs=2",
    "evaluation.chips=2",
    "tracking.experiment=pair",
]
TRAINING = "workflowType=machine_learning"


@dataclass(frozen=True)
class Pair:
    """Two networks that were trained beside one another, and what was printed."""

    folder: Path
    printed: str
    runs: dict[str, Any]  # kind -> run

    def page(self, after: str) -> str:
        """The link that stands under some words, without the address, which is another one here."""
        (page,) = re.findall(
            rf"^{after}\n(?:analogsim ui\n)?http://127.0.0.1:5000(/#/\S+)$", self.printed, re.MULTILINE
        )
        return str(page)


@dataclass(frozen=True)
class Study:
    """Where a study is kept, what it consists of, and the links that were printed at its end."""

    folder: Path
    uri: str
    storage: str
    links: str
    experiment: str
    parent: str
    trials: dict[str, Any]  # run id -> run, in the order of their start
    finals: dict[str, Any]

    def page(self, what: str) -> str:
        """A link without the address, which is another one here."""
        (page,) = re.findall(rf"^{what} +http://127.0.0.1:(?:5000|8080)(/\S+)$", self.links, re.MULTILINE)
        return str(page)

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
        for name in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE", "http_proxy", "HTTP_PROXY"):
            patch.delenv(name, raising=False)
        yield program, driver


@pytest.fixture(scope="module")
def study(browser: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Study:
    from analogsim.recipes import tune
    from analogsim.recipes.tracking import stores

    folder = tmp_path_factory.mktemp("study")
    with contextlib.chdir(folder):
        links = tune.tune(tune.configure(settings=SETTINGS)).links()
    uri, storage = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/optuna.db"
    client = stores.connect(uri)
    experiment = client.get_experiment_by_name("analogsim").experiment_id
    runs = client.search_runs([experiment], order_by=["attributes.start_time"])
    roles = {role: {run.info.run_id: run for run in runs if run.data.tags["role"] == role} for role in ROLES}
    (parent,) = roles["study"]
    return Study(folder, uri, storage, links, experiment, parent, roles["trial"], roles["final"])


@pytest.fixture(scope="module")
def pair(study: Study) -> Pair:
    """In the database of the study, so that one server shows both, and in an experiment of its own."""
    from analogsim.recipes.cli import main
    from analogsim.recipes.tracking import stores

    printed = io.StringIO()
    with contextlib.chdir(study.folder), contextlib.redirect_stdout(printed):
        main(["train", *PAIR, "out=pair", "--quiet"])
    client = stores.connect(study.uri)
    place = client.get_experiment_by_name("pair").experiment_id
    runs = {run.data.tags["training"]: run for run in client.search_runs([place])}
    (folder,) = (study.folder / "pair").iterdir()
    return Pair(folder, printed.getvalue(), runs)


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

    def charts(self) -> list[str]:
        """The charts in their order: the metric of each, or "coordinates"."""
        cards = self.texts("[data-testid=experiment-view-compare-runs-card]")
        return ["coordinates" if card.startswith("Parallel") else re.split(r"\d|Step", card)[0] for card in cards]

    def check_training(self) -> None:
        """The pages for training are open, and not those for GenAI."""
        told = self.texts("a, span")
        assert "Model registry" in told
        assert not {"Judges", "Prompts", "Playground", "Evaluation runs", "Agent versions"} & set(told)

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
    page.driver.get(mlflow + study.page("its trials"))
    best = sorted(study.completed.values(), key=lambda run: -run.data.metrics["objective"])
    named = {run.info.run_name: run for run in best}

    def shown() -> None:
        headers = set(page.texts(".ag-header-cell"))
        assert {"objective", *RESULTS, *PARAMETERS, "optuna.trial.state"} <= headers
        rows = page.rows()
        assert len(rows) == len(study.trials) == TRIALS
        assert set(rows[: len(best)]) == set(named)  # equal ones in any order; the values below say which come first
        states = [run.data.tags["optuna.trial.state"] for run in study.trials.values()]
        assert sorted(page.column("tags.`optuna.trial.state`")) == sorted(states)
        values = [float(text) for text in page.column("metrics.`objective`")[: len(best)]]
        assert values == pytest.approx([run.data.metrics["objective"] for run in best])
        assert page.column("params.`noise.shape`")[0] == named[rows[0]].data.params["noise.shape"]

    page.until(shown)
    assert page.errors(mlflow) == []


def test_all_runs(pair: Pair, mlflow: str, page: Page) -> None:
    """The list of runs has their training, device and scores, and names that begin with what differs."""
    page.driver.get(mlflow + pair.page("All runs, with their scores:"))
    scores = [f"test/accuracy/{end}" for end in ("clean", "drifted_1d", "drifted_1d_std", "drifted_1y")]

    def shown() -> None:
        page.check_training()
        assert {"training", "device", "model", *scores} <= set(page.texts(".ag-header-cell"))
        assert [name.partition(", ")[0] for name in page.rows()] == ["hardware-aware", "plain"]
        assert page.column("params.`training`") == ["hardware-aware", "plain"]
        assert page.column("params.`device`") == ["pcm", "pcm"]
        for name in scores:
            values = [pair.runs[kind].data.metrics[name] for kind in ("hardware-aware", "plain")]
            assert [float(text) for text in page.column(f"metrics.`{name}`")] == pytest.approx(values)

    page.until(shown)
    assert page.errors(mlflow) == []


def test_side_by_side(pair: Pair, mlflow: str, page: Page) -> None:
    """Two runs side by side: first their drift curves, in two colours, then parallel coordinates."""
    page.driver.get(mlflow + pair.page("Both networks side by side:"))
    ids = {run.info.run_id for run in pair.runs.values()}

    def drawn() -> None:
        page.check_training()
        assert page.charts()[:3] == ["test/accuracy/drift", "coordinates", "test/accuracy/drift_p"]
        assert page.curves("test/accuracy/drift") == {"axis": "log", "x": dict.fromkeys(ids, SECONDS)}
        named = {text.partition(", ")[0] for text in page.texts("a") if ", pcm, mlp, digits" in text}
        assert named == {"hardware-aware", "plain"}
        assert page.texts(".parcoords svg text.label")[:2] == ["training", "test/accuracy/clean"]

    page.until(drawn)
    assert len({run.data.tags["mlflow.runColor"] for run in pair.runs.values()}) == 2
    assert page.errors(mlflow) == []


def test_run(pair: Pair, mlflow: str, page: Page) -> None:
    """The page of a run names its data and its model."""
    page.driver.get(mlflow + pair.page("See the run in MLflow:"))

    def shown() -> None:
        page.check_training()
        text = page.driver.find_element("css selector", "body").text
        assert "Logged models" in text
        assert "hardware-aware, pcm, mlp, digits" in text
        assert re.search(r"digits \([0-9a-f#]+\)", text)

    page.until(shown)
    assert page.errors(mlflow) == []


def test_model(pair: Pair, mlflow: str, page: Page) -> None:
    """The page of a model has the scores on test data and leads to the run."""
    run = pair.runs["hardware-aware"]
    (output,) = run.outputs.model_outputs
    page.driver.get(f"{mlflow}/#/experiments/{run.info.experiment_id}/models/{output.model_id}?{TRAINING}")

    def shown() -> None:
        page.check_training()
        text = page.driver.find_element("css selector", "body").text
        for word in ("hardware-aware, pcm, mlp, digits", "Ready", "test/accuracy/drifted_1d", run.info.run_id[:20]):
            assert word in text
        assert str(run.data.metrics["test/accuracy/clean"])[:12] in text

    page.until(shown)
    assert page.errors(mlflow) == []


def test_every_link_opens_the_pages_for_training(pair: Pair, study: Study, mlflow: str, page: Page) -> None:
    """Those of a training, of a study, of a comparison, and of MLflow's own page of one."""
    from analogsim.recipes.compare import compare
    from analogsim.recipes.tracking.links import compare_link

    with contextlib.chdir(study.folder):
        compared = compare([pair.folder])
    links = re.findall(r"http://127.0.0.1:5000\S+", f"{pair.printed}\n{study.links}\n{compared.to_html()}")
    links += [compared.link, compare_link(compared.stored)]
    assert len(links) > 10
    for link in dict.fromkeys(html.unescape(link).rstrip('">') for link in links):
        page.driver.get("about:blank")
        page.driver.get(link.split('"')[0].replace("http://127.0.0.1:5000", mlflow))
        page.until(page.check_training)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_our_own_page(pair: Pair, study: Study, page: Page, scheme: str) -> None:
    """On a screen of 400 pixels no number is broken and all text can be read, by day and by night."""
    from analogsim.recipes.compare import compare

    with contextlib.chdir(study.folder):
        written = compare([pair.folder]).to_html()
    file = study.folder / f"{scheme}.html"
    file.write_text(written, encoding="utf-8")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.driver.get(file.as_uri())
    page.click("summary")
    assert page.script("return document.documentElement.scrollWidth") <= 400  # tables and drawing scroll by themselves
    numbers = page.script(
        """return [...document.querySelectorAll("td:not(:first-child):not(.text)")].map(cell => {
            const line = parseFloat(getComputedStyle(cell).lineHeight), range = document.createRange();
            range.selectNodeContents(cell);
            const lines = cell.querySelectorAll("br").length + 1;
            return [cell.textContent, range.getBoundingClientRect().height, 1.2 * line * lines];
        })"""
    )
    assert len(numbers) > 20
    assert all(height <= room for text, height, room in numbers if text), numbers
    contrasts = page.script(
        """const shares = color => color.match(/[\\d.]+/g).map(Number);
        const light = color => shares(color).slice(0, 3).map(each => each / 255)
            .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
            .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
        const behind = element => {
            const color = getComputedStyle(element).backgroundColor;
            return (shares(color)[3] ?? 1) ? color : behind(element.parentElement);
        };
        return [...document.querySelectorAll("body, body *:not(svg *):not(style)")].map(element => {
            const [low, high] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => a - b);
            return [element.tagName, (high + 0.05) / (low + 0.05)];
        })"""
    )
    assert min(contrast for _, contrast in contrasts) >= 4.5, contrasts
    background = page.script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(27, 27, 27)"}[scheme]


def test_a_band_is_seen_where_one_points(study: Study, page: Page) -> None:
    """From six curves on."""
    from selenium.webdriver import ActionChains

    from analogsim.recipes.comparison.comparison import Comparison
    from tests.recipes.reports import report, saved

    runs = tuple(saved(f"run {place}", report(0.9 - place / 20), place) for place in range(6))
    file = study.folder / "six.html"
    file.write_text(Comparison(runs).to_html(), encoding="utf-8")
    page.driver.get(file.as_uri())

    def seen() -> list[str]:
        ids = [f"drift-band-{place}" for place in range(6)]
        return page.script("return arguments[0].map(id => getComputedStyle(document.getElementById(id)).opacity)", ids)

    assert seen() == ["0"] * 6
    for part, place in (("name", 2), ("reach", 4)):
        element = page.driver.find_element("css selector", f"#drift-{part}-{place}" + " path" * (part == "reach"))
        to = ActionChains(page.driver)
        to.move_to_element(element).perform()

        def one(place: int = place) -> None:
            assert seen() == ["1" if each == place else "0" for each in range(6)]

        if part == "name":
            page.until(one)
    style = page.script("return getComputedStyle(document.querySelector('#drift-reach-0 path')).pointerEvents")
    assert style == "stroke"


def test_nested(study: Study, mlflow: str, page: Page) -> None:
    """Without the view a study is one row, which opens to its trials."""
    page.driver.get(f"{mlflow}/#/experiments/{study.experiment}/runs?workflowType=machine_learning")

    def one_row() -> None:
        assert page.rows() == [NAME]

    def opened() -> None:
        rows = page.rows()
        assert rows[0] == NAME
        assert set(rows[1:]) == {run.info.run_name for run in (study.trials | study.finals).values()}

    page.until(one_row)
    page.click(f'.ag-row[row-id="{study.parent}"] button')
    page.until(opened)
    assert page.errors(mlflow) == []


def test_charts(study: Study, mlflow: str, page: Page) -> None:
    """The charts of the view: parallel coordinates of what was searched, and drift curves over a logarithmic axis."""
    page.driver.get(mlflow + study.page("as charts"))

    def drawn() -> None:
        assert page.texts(".parcoords svg text.label") == [*PARAMETERS, "objective"]
        drift = page.curves("search/accuracy/drift")
        assert drift == {"axis": "log", "x": dict.fromkeys(study.completed, SECONDS)}
        epochs = page.curves("validation/accuracy/drifted_1d")
        assert epochs["axis"] == "linear"
        assert epochs["x"].keys() == study.trials.keys()

    page.until(drawn)
    assert page.errors(mlflow) == []


def test_final_comparison(study: Study, mlflow: str, page: Page) -> None:
    """The drift curves of the networks that are compared at the end of a study."""
    page.driver.get(mlflow + study.page("comparison"))

    def drawn() -> None:
        for name in ("test/accuracy/drift", "test/accuracy/drift_p05"):
            assert page.curves(name) == {"axis": "log", "x": dict.fromkeys(study.finals, SECONDS)}

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
    page.driver.get(dashboard + study.page("in Optuna"))
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
