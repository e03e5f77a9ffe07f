"""The README's Python runs as it stands, one block after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "after 1y" in capsys.readouterr().out
    assert (tmp_path / "chip.safetensors").exists()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/results.md"])
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
