"""The benchmarks run, write JSON, and refuse to compare what does not compute the same. No time is asserted."""

import copy
import dataclasses
import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import analogsim

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="benchmarks come with the checkout only")


@pytest.fixture(autouse=True)
def checkout_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def run(*arguments):
    from benchmarks.__main__ import main

    assert main(arguments) == 0


def numbers(value):
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    return [value] if isinstance(value, float) else []


@pytest.mark.slow
def test_everything_runs_and_writes_json(tmp_path, capsys, monkeypatch):
    from benchmarks import chip, hardware, montecarlo
    from benchmarks.harness.methods import CONTENDERS

    monkeypatch.setattr(montecarlo, "IMAGES", 16)
    monkeypatch.setattr(montecarlo, "BATCH", 8)
    file = tmp_path / "new" / "result.json"
    run("all", "--models", "lenet5", "--rounds", "2", "--steps", "1", "--json", str(file))
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["hardware"]["cpu"]
    assert document["hardware"]["gpu"] is None
    assert document["versions"]["torch"] == torch.__version__
    assert document["settings"] == {"rounds": 2, "steps": 1}
    expected = [("train", "lenet5", c.name) for c in CONTENDERS]
    expected += [("chip", "lenet5", device) for device in chip.DEVICES]
    expected += [("hardware", "lenet5", part) for part in ("plain", *(part.name for part in hardware.PARTS))]
    expected += [("montecarlo", "lenet5", way) for way in ("in turn", "together") * len(montecarlo.COUNTS)]
    expected.append(("montecarlo", "lenet5", "evaluate"))
    results = document["results"]

    def named(result):
        return next(result[key] for key in ("method", "device", "part", "way") if key in result)

    assert [(r["benchmark"], r["model"], named(r)) for r in results] == expected
    for result in results:
        assert all(math.isfinite(number) and number > 0 for number in numbers(result))
    printed = capsys.readouterr().out
    assert all(contender.name in printed for contender in CONTENDERS)


def tiny_transformer():
    from benchmarks.harness.networks import Case, transformer

    torch.manual_seed(0)
    model = transformer(8, 2, 16)
    return Case("tiny", (5, 8), 2, lambda _: copy.deepcopy(model))


@pytest.mark.slow
def test_every_benchmark_takes_a_transformer(monkeypatch):
    from benchmarks import chip, hardware, memory, montecarlo, train
    from benchmarks.harness.methods import CONTENDERS

    monkeypatch.setattr(montecarlo, "IMAGES", 4)
    monkeypatch.setattr(montecarlo, "BATCH", 2)
    case, printed = tiny_transformer(), []
    rows = [
        row
        for benchmark in (train, chip, hardware, montecarlo)
        for row in benchmark.run(case, CPU, rounds=1, steps=1, say=printed.append)
    ]
    assert len(rows) == len(CONTENDERS) + len(chip.DEVICES) + 1 + len(hardware.PARTS) + 2 * len(montecarlo.COUNTS) + 1
    assert all(row["model"] == "tiny" for row in [*rows, *memory.run(case, CPU, say=printed.append)])


def test_the_command_runs_from_the_root_of_the_checkout():
    command = [sys.executable, "-m", "benchmarks", "chip", "--models", "mlp", "--rounds", "1", "--steps", "1"]
    command += ["--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "A chip of mlp" in done.stdout


def test_methods_with_the_same_noise_have_the_same_gradients():
    from benchmarks import train
    from benchmarks.harness.networks import CASES, Case, resnet18

    slim = resnet18(width=4)  # shortcuts, strides and batch norm as in the one that is timed
    for case in (CASES["mlp"], CASES["lenet5"], Case("slim", (3, 16, 16), 2, lambda _: copy.deepcopy(slim))):
        train.check(case, CPU, batch=2)


def test_methods_with_the_same_noise_have_the_same_gradients_in_a_transformer():
    from benchmarks import train

    train.check(tiny_transformer(), CPU, batch=2)


def test_a_method_that_computes_something_else_is_not_timed(monkeypatch):
    from benchmarks import train
    from benchmarks.harness.methods import ABSOLUTE, CONTENDERS, Contender, HandWritten
    from benchmarks.harness.networks import CASES

    def too_small(weight):
        return weight + 0.999 * ABSOLUTE * torch.randn_like(weight)

    wrong = Contender("wrong", lambda model: HandWritten(model, too_small), "absolute")
    monkeypatch.setattr(train, "CONTENDERS", (*CONTENDERS, wrong))
    with pytest.raises(RuntimeError, match=r"'wrong' and 'save and restore'.*more than rounding"):
        train.check(CASES["mlp"], CPU)


def test_a_method_that_leaves_its_noise_behind_is_not_timed(monkeypatch):
    from benchmarks import train
    from benchmarks.harness.methods import Contender, SaveRestore
    from benchmarks.harness.networks import CASES

    class Forgetful(SaveRestore):
        def backward(self, images, labels):
            super().backward(images, labels)
            with torch.no_grad():
                self.weights[0].add_(1.0)

    monkeypatch.setattr(train, "CONTENDERS", (Contender("forgetful", Forgetful, "absolute"),))
    with pytest.raises(RuntimeError, match="'forgetful' does not give the clean weights back"):
        train.check(CASES["mlp"], CPU)


@pytest.mark.parametrize(
    "arguments",
    [["train", "--models", "alexnet"], ["chip", "--models", ","], ["train", "--rounds", "0"], ["other"], []],
)
def test_mistakes_on_the_command_line(arguments, capsys):
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


# Devices against their sources


def test_every_device_holds_its_formulas(tmp_path, capsys):
    from benchmarks import physics

    file = tmp_path / "table.md"
    assert physics.main(["--cells", "2000", "--table", str(file)]) == 0
    printed, written = capsys.readouterr().out, file.read_text(encoding="utf-8")
    for case in physics.CASES:
        assert f"## {case.title}\n" in written
        assert case.title in printed
    assert "largest deviation / SE" in written
    assert "error relative to the largest" in printed


def test_every_technology_has_cases_and_a_page():
    from benchmarks import physics

    folder = Path(analogsim.devices.__file__).parent.resolve()
    factories = {name: analogsim.device.registry.factory(name) for name in analogsim.available_devices()}
    built_in = {name for name, make in factories.items() if Path(inspect.getfile(make)).parent.resolve() == folder}
    effects = {name for name, make in factories.items() if isinstance(make, type)}
    pages = {case.page for case in physics.CASES}
    assert built_in - effects == pages - {"generic"}
    for page in pages:
        text = (ROOT / "docs" / "devices" / f"{page}.md").read_text(encoding="utf-8")
        assert (ROOT / "docs" / "devices" / f"{page}.png").is_file()
        assert f"python -m benchmarks.physics --page {page} --plot docs/devices" in text
        assert f"![{page}]({page}.png)" in text


@pytest.mark.parametrize("mean", [True, False])
def test_a_wrong_formula_is_found(mean, monkeypatch, capsys):
    from benchmarks import physics

    def wrong(x, t):
        right = case.published(x, t)
        return physics.Moments(right.mean + 0.1, right.std) if mean else physics.Moments(right.mean, 1.05 * right.std)

    (case,) = (case for case in physics.CASES if case.page == "reram-milo")
    monkeypatch.setattr(physics, "CASES", (dataclasses.replace(case, published=wrong),))
    assert physics.main(["--cells", "50000"]) == 1
    assert physics.main(["--cells", "50000", "--page", "reram-milo"]) == 1


def test_what_has_no_spread_must_agree():
    from benchmarks.physics import Moments, Row

    constant = torch.full((10,), 3.0).numpy()
    assert Row.of(3.0, None, Moments(3.0, 0.0), constant).z_mean == 0
    assert Row.of(3.0, None, Moments(3.1, 0.0), constant).z_mean == -math.inf
    assert Row.of(3.0, None, Moments(3.0, 0.1), constant).z_std == -math.inf


def test_plots_of_devices(tmp_path):
    from benchmarks import physics

    folder = tmp_path / "new"
    assert physics.main(["--cells", "1000", "--page", "sonos", "--plot", str(folder)]) == 0
    assert [file.name for file in folder.iterdir()] == ["sonos.png"]


def test_faults_and_compensations_of_a_trained_network(tmp_path, monkeypatch, capsys):
    from analogsim.recipes.cli import main as cli
    from benchmarks import compensation, faults

    monkeypatch.chdir(tmp_path)
    quick = ["--model", "mlp", "--epochs", "1", "--chips", "1", "--no-tracking", "--quiet", "data.limit=100"]
    cli(["train", *quick, "baseline=false"])
    (checkpoint,) = tmp_path.glob("runs/*/*/checkpoint.pt")
    capsys.readouterr()
    assert faults.main([str(checkpoint), "--chips", "2"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("unknown", "written around", "and remapped", "s of processor time"))
    assert compensation.main([str(checkpoint), "--chips", "2", "--times", "1s,1y", "--crossbar", "standard"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["none", "global", "crossbar", "column"]
    assert [line.split()[0] for line in lines[6:9]] == ["global+bias", "global+affine", "global+affine@1h"]
    assert "8-bit ADC" in lines[-1]


def test_outputs_matched_in_all_ways(capsys):
    from benchmarks import outputs

    quick = ["--chips", "2", "--inputs", "8,64", "--limit", "300", "--epochs", "2", "--crossbar", "standard"]
    assert outputs.main(["digits-mlp", *quick]) == 0
    printed = capsys.readouterr().out
    for row in (
        "as it is",
        "moments",
        "bias",
        "scale",
        "moments, measured at 1h",
        "pcm after 1y",
        "stuck-at",
        "64 inputs",
    ):
        assert row in printed


def test_a_judgement_beside_an_exhaustive_search(capsys, monkeypatch):
    from analogsim.recipes.judge.remedies import all_remedies
    from benchmarks import judge

    few = {name: all_remedies()[name] for name in ("column", "largest-weight-97")}
    monkeypatch.setattr(judge, "all_remedies", lambda: few)
    assert judge.main(["mlp", "--minutes", "0.1", "--chips", "2", "--epochs", "1", "--crossbar", "ideal"]) == 0
    printed = capsys.readouterr().out
    assert "Verdict: " in printed
    last = printed.splitlines()[-1].split()
    assert last[0] == "mlp"
    with pytest.raises(SystemExit):
        judge.main(["nothing"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "vit", "regression", "lenet5", "separable"])
def test_every_network_that_is_judged_can_be_trained(name):
    from benchmarks import judge

    try:
        case = judge.trained(name, epochs=0)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert len(case.model(case.test[0][:2])) == 2
