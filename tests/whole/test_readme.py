"""The README's Python runs as it stands, one block after the other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_blocks(name):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    return len(blocks)


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_blocks("README.md") >= 3
    assert "after 1y" in capsys.readouterr().out
    assert (tmp_path / "chip.safetensors").exists()


def test_readme_names_every_device():
    import analogsim

    text = (ROOT / "README.md").read_text()
    for name in analogsim.available_devices():
        assert f"`{name}`" in text, name
