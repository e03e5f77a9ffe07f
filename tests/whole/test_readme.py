"""The README's Python runs as it stands, one block after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_blocks(name):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    return len(blocks)


@pytest.mark.parametrize(
    "name",
    [f"docs/{page}.md" for page in ("hardware", "training", "robust", "wires", "sensitivity", "data", "tasks")],
)
def test_python_blocks_of_the_pages_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks(name) >= 1


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_blocks("README.md") >= 3
    assert "after 1y" in capsys.readouterr().out
    assert (tmp_path / "chip.safetensors").exists()


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]
)
def test_files_that_are_named_exist(name):
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    for link in links:
        assert ((ROOT / name).parent / link).exists(), link


def test_readme_names_every_device():
    import analogsim

    text = (ROOT / "README.md").read_text()
    for name in analogsim.available_devices():
        assert f"`{name}`" in text, name
