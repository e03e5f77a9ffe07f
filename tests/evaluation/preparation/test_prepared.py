import json

from torch import nn

import analogsim
from analogsim.chip.compensation import as_compensations
from analogsim.evaluation.preparation import Prepared, TriedStep


def prepared():
    steps = (
        TriedStep("percentile", "nothing", 0.08, 0.01, True, 0.08),
        TriedStep("affine", "two numbers for each output", 0.05, 0.002, True, 0.03),
        TriedStep("bias", "a number", why="no time was left"),
    )
    analog = analogsim.convert(nn.Linear(4, 2), "pcm(percentile=99.5)", crossbar="standard")
    return Prepared(
        analog, as_compensations("column"), None, steps, 0.1, 0.03, "error", (3600.0,), 4, 64, (16, 16), 1.25
    )


def test_the_table():
    lines = str(prepared()).splitlines()
    assert lines[0] == "error: 0.1 before, 0.03 after (mean over 4 chips at 1h, 64 inputs held out, 1.2 s)"
    assert lines[4].split() == ["percentile", "0.08", "20%", "10%", "yes", "0.08", "nothing"]
    assert lines[6].split("-")[-1].strip() == "no time was left"
    assert lines[-1] == "kept: percentile, affine; compensation 'column'; 16 cells"


def test_what_it_holds():
    found = prepared()
    assert found.kept == ("percentile", "affine")
    assert {name: mapping.percentile for name, mapping in found.mapping.items()} == {"": 99.5}
    assert found.crossbars == {"": analogsim.as_crossbar("standard")}
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["kept"] == ["percentile", "affine"]
    assert stored["devices"] == {"": "pcm(percentile=99.5)"}
    assert [row["name"] for row in stored["steps"]] == ["percentile", "affine", "bias"]
    assert list(found.to_frame()["alone"])[:2] == [0.08, 0.05]
