"""The site: every public name has its entry, an example and a guide, all code runs, and Sphinx builds strictly."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.device import registry

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")) if DOCS.is_dir() else []
REFERENCE = [page for page in PAGES if page.startswith("reference/")]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(not PAGES, reason="not in a checkout")


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    return [textwrap.dedent(block) for _, block in BLOCK.findall(text_of(page))]


def data(features: int = 16, classes: int = 4) -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A network and batches that it is right on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, classes))
    inputs = torch.randn(64, features)
    return model, [(inputs, model(inputs).argmax(1))]


def a_network() -> dict[str, Any]:
    model, loader = data()
    return {"analogsim": analogsim, "torch": torch, "model": model, "loader": loader}


def a_twin() -> dict[str, Any]:
    names = a_network()
    return {**names, "analog": analogsim.convert(names["model"], "pcm"), "inputs": names["loader"][0][0]}


def what_lightning_saves() -> dict[str, Any]:
    """A configuration of aihwkit-lightning's user guide, and the state dict that goes with it."""
    names = a_network()
    names["rpu_config"] = {
        "forward": {
            "inp_res": 254,
            "out_res": 254,
            "out_bound": 12.0,
            "out_noise": 0.01,
            "out_noise_per_channel": True,
        },
        "clip": {"type": "LAYER_GAUSSIAN_PER_CHANNEL", "sigma": 2.5},
        "modifier": {"noise_type": "ADD_NORMAL_PER_CHANNEL", "std_dev": 0.05},
        "mapping": {"max_input_size": -1},
        "pre_post": {"input_range": {"enable": True, "init_from_data": 100, "init_std_alpha": 3.0}},
    }
    ranges = {f"{number}.input_range": torch.tensor([3.0]) for number in (0, 2)}
    torch.save({**names["model"].state_dict(), **ranges}, "lightning.pt")
    return names


def trainers() -> dict[str, Any]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    for package in ("accelerate", "transformers", "lightning", "mlflow"):
        pytest.importorskip(package, reason="needs the extra frameworks")
    import transformers
    from torch.distributed.fsdp import FSDPModule
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=12, num_labels=2, **sizes)
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained("small")
    words = torch.randint(30, (32, 8))
    sentences = [{"input_ids": row, "labels": int(row[0] > 14)} for row in words]
    return {
        **{"analogsim": analogsim, "analog": analogsim.convert(model, "pcm"), "DataLoader": DataLoader},
        **{"data": sentences, "AutoModel": transformers.AutoModel, "name": "small", "folder": "twin"},
        **{"inputs": [{"input_ids": words}], "FSDPModule": FSDPModule},
    }


def a_split() -> dict[str, Any]:
    pytest.importorskip("torchvision", reason="needs the extra recipes")
    model, loader = data()
    return {"model": model, "test": loader, "validation": loader, "train": [loader[0][0]]}


def nothing() -> dict[str, Any]:
    return {}


def digits() -> dict[str, Any]:
    pytest.importorskip("sklearn", reason="needs the extra recipes")
    return {}


def recipes() -> dict[str, Any]:
    for package in ("torchvision", "optuna", "mlflow"):
        pytest.importorskip(package, reason="needs the extra recipes")
    return {}


def reports() -> dict[str, Any]:
    names = {**recipes(), **a_twin()}
    return {**names, "report": analogsim.evaluate(names["analog"], names["loader"], chips=2, times=("1s", "1d"))}


# What the reader has before a page's first line, where the page does not make it.
BEFORE = {
    "coming-from.md": what_lightning_saves,
    "devices/temperature.md": a_twin,
    "frameworks.md": trainers,
    "judge.md": a_split,
    "studies.md": recipes,
    "reference/mlflow.md": reports,
    "tutorial.md": digits,
}
# The same at the size of a test.
SMALLER = {
    "judge.md": (("minutes=10", "minutes=0.05"),),
    "studies.md": (
        ("n_trials=20", "n_trials=1"),
        ("epochs=10", "epochs=1, chips=1"),
        ("high=4}", 'high=4}", "data.limit=200'),
    ),
    "fit.md": (("range(20)", "range(1)"),),
}
# Pages whose code is files, which other tests run as such.
ELSEWHERE = {
    "cluster.md": "tests/whole/test_cluster.py",
    "contributing.md": "tests/whole/test_contributing.py",
    "yours.md": "tests/examples/test_yours.py",
}
SLOW = (
    "tutorial.md",
    "reference/mlflow.md",
    "robust.md",
    "frameworks.md",
    "judge.md",
    "studies.md",
    "fit.md",
    "published.md",
)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())
        for page in PAGES
        if page not in ELSEWHERE and blocks(page)
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries that pages use
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = BEFORE.get(page, nothing)()
    monkeypatch.setattr(registry, "factories", dict(registry.factories))
    try:
        for block in blocks(page):
            for theirs, ours in SMALLER.get(page, ()):
                block = block.replace(theirs, ours)
            exec(compile(block, page, "exec"), names)
    finally:
        undo()


def undo() -> None:
    """What a page leaves behind in its process: reports that are logged by themselves, MLflow's run and store."""
    if "analogsim.integrations.mlflow" in sys.modules:
        sys.modules["analogsim.integrations.mlflow"].autolog(disable=True)
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].end_run()
        sys.modules["mlflow"].set_tracking_uri("")


def test_code_that_is_run_elsewhere_is_named_there() -> None:
    for page, test in ELSEWHERE.items():
        assert (DOCS / page).is_file()
        assert {"cluster": "cluster.md", "contributing": "CONTRIBUTING.md", "yours": "yours"}[
            page.removesuffix(".md")
        ] in (ROOT / test).read_text(encoding="utf-8")
    assert set(SMALLER) | set(BEFORE) | set(SLOW) <= set(PAGES)


ENTRY = re.compile(r"^\.\. auto(?:function|class|exception):: analogsim\.(\w+)$", re.MULTILINE)


def test_every_public_name_has_one_entry_in_the_reference() -> None:
    entries = [name for page in REFERENCE for name in ENTRY.findall(text_of(page))]
    assert sorted(entries) == sorted(analogsim.__all__)


def test_every_public_name_has_an_example_that_is_run() -> None:
    code = "\n".join(block for page in REFERENCE for block in blocks(page))
    assert [
        name
        for name in analogsim.__all__
        if not re.search(rf"\banalogsim\.{name}\b", code)
        and not re.search(rf">>>.*\b{name}\b", inspect.getdoc(getattr(analogsim, name)) or "")
    ] == []


def test_every_public_name_stands_in_a_guide() -> None:
    left_out = {*REFERENCE, "errors.md", "changelog.md", "contributing.md"}
    guides = "\n".join(text_of(page) for page in PAGES if page not in left_out)
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", guides, flags=re.DOTALL))
    assert [name for name in analogsim.__all__ if not re.search(rf"\b{name}\b", code)] == []


def test_every_page_is_in_the_navigation() -> None:
    trees = re.findall(r"```\{toctree\}\n(.*?)```", text_of("index.md"), flags=re.DOTALL)
    named = [line for tree in trees for line in tree.split("\n") if line and not line.startswith(":")]
    assert sorted(f"{name}.md" for name in named) == [page for page in PAGES if page != "index.md"]


def test_a_citation_is_of_this_version() -> None:
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {analogsim.__version__}\n" in cited
    assert f"## {analogsim.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """The places of a page that links may name, as GitHub and MyST call them."""
    titles = re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title)).lower().replace(" ", "-") for title in titles)
    return set(plain)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{page}" for page in PAGES)])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        aim = (ROOT / page).parent / link if link else ROOT / page
        assert aim.exists(), link
        if anchor:
            assert anchor in anchors(aim.read_text(encoding="utf-8")), f"{link}#{anchor}"


def test_the_figure_of_a_weight_is_that_of_its_program() -> None:
    names = runpy.run_path(str(DOCS / "make_weight.py"), run_name="weight")
    assert names["drawing"]() == (DOCS / "weight.svg").read_text(encoding="utf-8"), "python docs/make_weight.py"


@pytest.mark.slow
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for package in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        pytest.importorskip(package, reason="needs the extra docs")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        tmp_path / "trees",
        DOCS,
        tmp_path / "site",
    ]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-3000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe|source)[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>", html) == [], page.name
        assert re.findall(r"<link[^>]*rel=[\"']?(?:stylesheet|preload|icon)[^>]*href=[\"']?(?:https?:)?//", html) == []
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:|@import", sheet.read_text(encoding="utf-8")), sheet.name
    # The search reads this file as a script, so that it works without a server.
    assert "Search.setIndex" in (tmp_path / "site" / "searchindex.js").read_text(encoding="utf-8")[:100]
    twin = (tmp_path / "site" / "reference" / "twin.html").read_text(encoding="utf-8")
    assert 'id="analogsim.convert"' in twin
    assert "<math" in (tmp_path / "site" / "reference" / "devices.html").read_text(encoding="utf-8")
