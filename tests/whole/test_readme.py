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


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_blocks("README.md") >= 2
    assert "after 1y" in capsys.readouterr().out


def test_it_is_a_screen_and_a_half():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110


@pytest.mark.parametrize("page", ["README.md", "docs/choose.md"])
def test_every_device_is_named(page):
    import analogsim

    text = (ROOT / page).read_text(encoding="utf-8")
    for name in analogsim.available_devices():
        assert f"`{name}`" in text, name
