from __future__ import annotations

import json

import pytest

from analogsim.recipes.cli import main


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["summary", "mlp", "--json", "-"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [layer["name"] for layer in found["layers"]] == ["fc1", "fc2", "fc3"]
    assert found["analog_share"] == 1
    assert "3 analog layers" in err
