from __future__ import annotations

import pathlib
import random
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import (
    AnalogLayer,
    Drift,
    Effect,
    Gaussian,
    NotProgrammedError,
    Quantization,
    ReadNoise,
    StaleChipError,
    StuckAt,
)
from analogsim.chip.lifecycle import without_errors
from analogsim.errors import ChipGradientWarning

# One device with every stage: levels, programming error, faults, drift, white read noise.
EVERYTHING = [Quantization(16), Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)]
DEVICES = {"pcm": "pcm", "gaussian": "gaussian", "read-noise": "read-noise", "everything": EVERYTHING}
TIMES = (0.0, 1.0, "1h", "1d", "1y")


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def layers_of(analog: nn.Module) -> list[AnalogLayer]:
    return [module for module in analog.modules() if isinstance(module, AnalogLayer)]


def chip_weights(analog: nn.Module) -> dict[str, Tensor]:
    """The effective weights of a programmed twin by the layers' names."""
    found = {}
    for layer in layers_of(analog):
        assert layer.analog.chip is not None
        found[layer.analog.name] = layer.analog.chip.weight_for(layer.weight)[0].clone()
    return found


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- the Parameters are not touched (traps 1 and 16) ----------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_parameters_and_buffers_are_bitwise_the_same(device: object) -> None:
    model = mlp()
    analog = analogsim.convert(model, device)
    state = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    grads = [parameter.grad for parameter in model.parameters()]
    analogsim.program(analog, seed=0)
    analog.eval()
    for t in TIMES:
        analogsim.drift(analog, t)
        analog(torch.randn(3, 6))
    with analogsim.programmed(analog, seed=1, t="1y"):
        analog(torch.randn(3, 6))
    analogsim.evaluate(analog, [(torch.randn(3, 6), torch.zeros(3, dtype=torch.long))], chips=2, times=(0, "1d"))
    analogsim.to_digital(analog, "programmed")
    analogsim.erase(analog)
    now = model.state_dict(keep_vars=True)
    assert all(now[name] is not None and id(now[name]) == where for name, (where, _) in state.items())
    assert all(torch.equal(now[name], value) for name, (_, value) in state.items())
    assert [parameter.grad for parameter in model.parameters()] == grads


def test_trap_01_a_drifted_chip_in_the_middle_of_training_changes_nothing() -> None:
    def train(look: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = mlp()
        analog = analogsim.convert(model, "pcm")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(6):
            x = torch.randn(5, 6)
            optimizer.zero_grad()
            analog(x).square().sum().backward()
            optimizer.step()
            if look and step % 2:
                analogsim.evaluate(analog, [(x, torch.zeros(5, dtype=torch.long))], chips=2, times=("1s", "1y"))
                with analogsim.programmed(analog, seed=step, t="1y"):
                    analog(x)
        return [tensor.clone() for tensor in model.state_dict().values()]

    assert all(map(torch.equal, train(look=False), train(look=True)))


# --- chip identity (trap 7) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_trap_07_same_seed_same_chip_whatever_else(device: object) -> None:
    model = mlp().eval()
    analog = analogsim.convert(model, device)
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, "1d")
    first = chip_weights(analog)
    torch.manual_seed(99)
    analogsim.program(analog, seed=4)
    if device != "read-noise":
        assert not same(chip_weights(analog), first)
    other = analogsim.convert(model, device)
    analogsim.program(other, seed=3)
    analogsim.drift(other, "1d")
    assert same(chip_weights(other), first)
    analogsim.program(analog, seed=np.int64(3))
    analogsim.drift(analog, 86400)
    assert same(chip_weights(analog), first)


def test_trap_07_answers_do_not_depend_on_the_batch_size() -> None:
    analog = analogsim.convert(mlp().eval(), "pcm")
    analogsim.program(analog, seed=0)
    x = torch.randn(7, 6)
    torch.testing.assert_close(torch.cat([analog(row) for row in x.split(2)]), analog(x))


def test_trap_07_chips_do_not_depend_on_the_order_of_layers() -> None:
    class Net(nn.Module):
        def __init__(self, order: tuple[str, ...]) -> None:
            super().__init__()
            for name in order:
                setattr(self, name, nn.Linear(4, 4))

    one, two = Net(("a", "b", "c")), Net(("c", "a", "b"))
    two.load_state_dict(one.state_dict())
    chips = []
    for model in (one, two):
        analog = analogsim.convert(model, "pcm")
        analogsim.program(analog, seed=5)
        analogsim.drift(analog, "1mo")
        chips.append(chip_weights(analog))
    assert same({name: chips[1][name] for name in chips[0]}, chips[0])
    # A layer that is not there changes no one else's errors.
    alone = Net(("b",))
    alone.b.load_state_dict(one.b.state_dict())
    analog = analogsim.convert(alone, "pcm")
    analogsim.program(analog, seed=5)
    analogsim.drift(analog, "1mo")
    assert torch.equal(chip_weights(analog)["b"], chips[0]["b"])


@pytest.mark.parametrize("device", ["pcm", "gaussian", "stuck-at"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-6), (torch.bfloat16, 1e-2)])
def test_another_dtype_of_the_same_values_is_the_same_chip(device: str, dtype: torch.dtype, close: float) -> None:
    model = mlp().to(torch.bfloat16).to(torch.float32)  # values that every dtype holds
    analog = analogsim.convert(model, device)
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1d")
    first = chip_weights(analog)
    other = mlp().to(dtype)
    other.load_state_dict(model.state_dict())
    analog = analogsim.convert(other, device)
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1d")
    for name, value in chip_weights(analog).items():
        assert value.dtype == dtype
        torch.testing.assert_close(value.float(), first[name], rtol=close, atol=close * float(first[name].abs().max()))


@pytest.mark.parametrize("device", ["pcm", "gaussian"])
def test_memory_format_does_not_matter(device: str) -> None:
    model = nn.Conv2d(3, 4, 3)
    analog = analogsim.convert(model, device)
    analogsim.program(analog, seed=0)
    first = chip_weights(analog)
    model.to(memory_format=torch.channels_last)
    analogsim.program(analog, seed=0)
    assert same(chip_weights(analog), first)


_SCRIPT = """
import hashlib, torch, analogsim
from analogsim import Drift, Gaussian, Quantization, ReadNoise, StuckAt
digest = hashlib.sha256()
weight = (torch.arange(48).reshape(8, 6) % 7 - 3) / 8
for device in ("pcm", [Quantization(16), Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)]):
    model = torch.nn.Sequential(torch.nn.Linear(6, 8, bias=False))
    model.load_state_dict({"0.weight": weight})
    analog = analogsim.convert(model, device)
    analogsim.program(analog, seed=11)
    analogsim.drift(analog, "1d")
    analog.eval()
    with torch.no_grad():
        digest.update(analog(torch.eye(6)).numpy().tobytes())
print(digest.hexdigest())
"""


def test_another_process_has_the_same_chip(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(_SCRIPT, "here", "exec"), {})
    here = capsys.readouterr().out.strip()
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_global_random_state_is_left_alone(device: object) -> None:
    analog = analogsim.convert(mlp(), device).eval()
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    with analogsim.programmed(analog, seed=0, t="1d"):
        analog(torch.ones(2, 6))
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1y")
    analog(torch.ones(2, 6))
    analogsim.evaluate(analog, [(torch.ones(2, 6), torch.zeros(2, dtype=torch.long))], chips=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]


# --- time (trap 24) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
@pytest.mark.parametrize("compensation", ["global", None])
def test_a_chip_is_followed_forwards_and_backwards(device: object, compensation: str | None) -> None:
    analog = analogsim.convert(mlp(), device).eval()
    analogsim.program(analog, seed=0)
    x = torch.randn(4, 6)
    answers = {}
    for t in (*TIMES, 123.4):
        analogsim.drift(analog, t, compensation=compensation)
        answers[t] = chip_weights(analog), analog(x)
    for t in (123.4, *reversed(TIMES), "1h", "1h"):
        analogsim.drift(analog, t, compensation=compensation)
        assert same(chip_weights(analog), answers[t][0])
        assert torch.equal(analog(x), answers[t][1])


def test_slow_noise_is_drawn_once_per_time() -> None:
    """1/f noise: it stays while inputs stream through, and another time has another draw."""
    slow = [analogsim.devices.PCMReadNoise()]
    analog = analogsim.convert(nn.Linear(6, 4), slow).eval()
    analogsim.program(analog, seed=0)
    x = torch.randn(2, 6)
    assert torch.equal(analog(x), analog(x))
    analogsim.drift(analog, "1d")
    day = analog(x)
    assert torch.equal(day, analog(x))
    analogsim.drift(analog, 86401.0)
    assert not torch.equal(day, analog(x))
    analogsim.drift(analog, "1d")
    assert torch.equal(day, analog(x))


@dataclass(frozen=True)
class YoungOnly(Effect):
    """Measured for a day, and no model beyond."""

    def age(self, g: Tensor, t: float | Tensor, cells: object, drawn: object) -> Tensor:
        if t > 86400:
            raise ValueError("no data beyond one day")
        return g * 0.9


def test_a_time_that_one_layer_refuses_leaves_all_at_their_age() -> None:
    analog = analogsim.convert(mlp(), {"3": YoungOnly(), "*": "pcm"}).eval()
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1h", compensation=None)
    before = chip_weights(analog)
    with pytest.raises(ValueError, match="no data beyond"):
        analogsim.drift(analog, "1y")
    assert same(chip_weights(analog), before)
    assert "chip 0 at 1h" in repr(analog[0])
    with pytest.raises(ValueError, match="no data beyond"), analogsim.programmed(analog, seed=2, t="1y"):
        pass
    assert same(chip_weights(analog), before)


# --- no chip, stale chip (trap 4) -----------------------------------------------------------------------------------


def test_unprogrammed() -> None:
    analog = analogsim.convert(mlp(), "pcm")
    with pytest.raises(NotProgrammedError, match=r"layer '0' is in eval mode.*analogsim.program.*digital model"):
        analog.eval()(torch.ones(1, 6))
    for action in (lambda: analogsim.drift(analog, 1), lambda: analogsim.save_chip(analog, "x")):
        with pytest.raises(NotProgrammedError, match=r"layer '0' has no chip; call analogsim.program"):
            action()
    analogsim.program(analog)
    analog(torch.ones(1, 6))
    analogsim.erase(analog)
    analogsim.erase(analog)
    with pytest.raises(NotProgrammedError):
        analog(torch.ones(1, 6))
    for action in (analogsim.program, analogsim.erase, lambda model: analogsim.drift(model, 1)):
        with pytest.raises(ValueError, match="Sequential has no analog layer"):
            action(mlp())


# --- programmed() ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_programmed_restores_chip_time_and_modes(fails: bool) -> None:
    analog = analogsim.convert(mlp(), "pcm")
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1h", compensation=None)
    analog[1].eval()
    before, modes, text = chip_weights(analog), [module.training for module in analog.modules()], repr(analog)

    def block() -> None:
        with analogsim.programmed(analog, seed=1, t="1y") as inside:
            assert inside is analog
            assert not any(module.training for module in analog.modules())
            assert "chip 1 at 1y" in repr(analog)
            analogsim.drift(analog, "1mo")
            with analogsim.programmed(analog, seed=2):
                assert "chip 2 at 0s" in repr(analog)
            assert "chip 1 at 1mo" in repr(analog)
            analogsim.erase(analog)
            analog.train()
            if fails:
                raise KeyError("inside")

    if fails:
        with pytest.raises(KeyError, match="inside"):
            block()
    else:
        block()
    assert same(chip_weights(analog), before)
    assert [module.training for module in analog.modules()] == modes
    assert repr(analog) == text


def test_programmed_equals_program_and_drift() -> None:
    analog = analogsim.convert(mlp(), "pcm").eval()
    x = torch.randn(3, 6)
    with analogsim.programmed(analog, seed=3, t="1d", compensation=None):
        inside = analog(x)
    assert all(layer.analog.chip is None for layer in layers_of(analog))
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, "1d", compensation=None)
    assert torch.equal(analog(x), inside)


def test_a_failing_program_leaves_the_old_chip() -> None:
    analog = analogsim.convert(mlp(), "pcm").eval()
    analogsim.program(analog, seed=0)
    weight = analog[3].weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="layer '3' holds NaN"):
        analogsim.program(analog, seed=1)
    with pytest.raises(ValueError, match="layer '3' holds NaN"), analogsim.programmed(analog, seed=1):
        pass
    with torch.no_grad():
        weight.copy_(kept)
    assert "chip 0 at 0s" in repr(analog)
    analog(torch.ones(1, 6))


@pytest.mark.parametrize("seed", [1.0, "1", None, True, torch.tensor(1.5)])
def test_bad_seeds(seed: object) -> None:
    analog = analogsim.convert(mlp(), "pcm")
    with pytest.raises(TypeError, match="seed: must be an integer, got"):
        analogsim.program(analog, seed)  # type: ignore[arg-type]


def test_bad_times_and_compensation() -> None:
    analog = analogsim.convert(mlp(), "pcm")
    analogsim.program(analog, seed=0)
    for t in (-1, float("nan"), float("inf"), "1 fortnight", "", "-1s"):
        with pytest.raises(ValueError, match="time: "):
            analogsim.drift(analog, t)
    for t in (None, True, [1]):
        with pytest.raises(TypeError, match="time: give seconds or text"):
            analogsim.drift(analog, t)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"compensation: must be None, or one of global, crossbar, column, .*, got 'globl'"
    ):
        analogsim.drift(analog, 1, compensation="globl")
    with pytest.raises(ValueError, match="compensation"), analogsim.programmed(analog, 0, compensation="no"):
        pass
    assert "chip 0 at 0s" in repr(analog)


# --- compensation (trap 18) -----------------------------------------------------------------------------------------


def test_one_exponent_for_all_cells_cancels_exactly_and_a_spread_does_not() -> None:
    x = torch.randn(5, 6)
    errors = {}
    for nu_std in (0.0, 0.03):
        model = mlp().eval()
        analog = analogsim.convert(model, Drift(nu=0.05, nu_std=nu_std))
        analogsim.program(analog, seed=0)
        with torch.no_grad():
            fresh = analog(x)
            torch.testing.assert_close(fresh, model(x))
            analogsim.drift(analog, "1y", compensation=None)
            assert (analog(x) - fresh).norm() > 0.1 * fresh.norm()
            analogsim.drift(analog, "1y")
            errors[nu_std] = float((analog(x) - fresh).norm() / fresh.norm())
    assert errors[0.0] < 1e-6
    assert errors[0.03] > 0.02


def test_a_device_without_drift_is_left_alone() -> None:
    analog = analogsim.convert(mlp(), [Gaussian(0.1), ReadNoise(0.1)])
    analogsim.program(analog, seed=0)
    first = chip_weights(analog)
    analogsim.drift(analog, "1y")
    assert same(chip_weights(analog), first)


# --- surroundings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_inference_mode(device: object) -> None:
    model = mlp()
    analog = analogsim.convert(model, device).eval()
    x = torch.randn(3, 6)
    with torch.inference_mode():
        analogsim.program(analog, seed=0)
        analogsim.drift(analog, "1d")
        inside = analog(x)
    analogsim.drift(analog, "1d")
    assert torch.equal(analog(x), inside)
    # What was programmed in inference mode is fit for gradients on the input.
    with torch.inference_mode():
        analogsim.program(analog, seed=0)
    x.requires_grad_(True)
    assert torch.autograd.grad(analog(x).sum(), x)[0].any()
    with torch.inference_mode():
        model[0].weight.add_(1)
        with pytest.raises(StaleChipError):
            analog(x)


def test_gradient_through_a_chip_is_that_of_its_weights() -> None:
    analog = analogsim.convert(mlp(), "pcm").eval()
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1d")
    plain = analogsim.to_digital(analog, "programmed")
    x = torch.randn(3, 6, requires_grad=True)
    mine, theirs = (torch.autograd.grad(model(x).square().sum(), x)[0] for model in (analog, plain))
    torch.testing.assert_close(mine, theirs)
    with pytest.warns(ChipGradientWarning, match="on the chip"):
        analog(x).sum().backward()
    assert analog[0].weight.grad is None  # a chip's weights do not learn
    assert analog[0].bias.grad is not None


@pytest.mark.parametrize("device", ["pcm", EVERYTHING])
def test_a_programmed_twin_moves_to_another_dtype(device: object) -> None:
    analog = analogsim.convert(mlp().double(), device).eval()
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1d")
    x = torch.randn(3, 6)
    double = chip_weights(analog)
    analog.float()
    assert analog(x).dtype == torch.float32
    for name, value in chip_weights(analog).items():
        torch.testing.assert_close(value.double(), double[name], rtol=1e-6, atol=1e-7)
    analogsim.drift(analog, "1y")
    analogsim.drift(analog, "1d")
    for name, value in chip_weights(analog).items():
        torch.testing.assert_close(value.double(), double[name], rtol=1e-6, atol=1e-7)
    analog.bfloat16()
    assert analog(x.bfloat16()).dtype == torch.bfloat16
    analog.double()  # the weights were rounded on the way: no longer those of the chip
    with pytest.raises(StaleChipError):
        analog(x.double())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    for device in DEVICES.values():
        analog = analogsim.convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)), device).eval()
        analogsim.program(analog, seed=0)
        x = 300 * torch.ones(2, 1, 4, 4)  # its square is beyond float16
        full = analog(x).detach()
        analogsim.program(analog, seed=0)
        with torch.autocast("cpu", dtype):
            half = analog(x)
        assert half.dtype == dtype
        assert half.isfinite().all()
        torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05 * float(full.abs().max()))


# --- known faults ---------------------------------------------------------------------------------------------------


def faulty(crossbar: analogsim.Crossbar | None = None) -> tuple[nn.Linear, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    device = analogsim.as_device_model("pcm").replace(mapping=analogsim.Mapping("pair", "tensor"))
    faults = torch.zeros(2, 4, 6, dtype=torch.int8)
    faults[0, 1], faults[1, 1] = 1, 1  # a dead output
    faults[0, 2, 3], faults[1, 2, 3] = 2, 1
    return layer, analogsim.convert(layer, device, crossbar=crossbar or analogsim.Crossbar()), faults


def test_known_faults_are_where_the_map_says() -> None:
    layer, analog, faults = faulty()
    analogsim.program(analog, seed=1, faults={"": faults})
    for t in ("0s", "1d"):
        analogsim.drift(analog, t, compensation=None)
        weight = analogsim.to_digital(analog, "programmed").weight
        read = analog.analog.chip.device.age(analog.analog.chip.written, analogsim.seconds(t))
        assert not read[:, 1].any(), "stuck at g_min"
        assert read[0, 2, 3] == 25, "stuck at g_max"
        assert weight[2, 3] > 0.85 * layer.weight.abs().max()
    healthy = analogsim.convert(layer, analog.analog.device)
    analogsim.program(healthy, seed=1)
    works = faults == 0
    for one, other in zip(
        (analog.analog.chip.written.programmed, *analog.analog.chip.written.drawn[1].values()),
        (healthy.analog.chip.written.programmed, *healthy.analog.chip.written.drawn[1].values()),
        strict=True,
    ):
        assert torch.equal(one[works], other[works]), "the other cells are those of the same chip"


def test_known_faults_are_saved_and_evaluated(tmp_path: pathlib.Path) -> None:
    _, analog, faults = faulty(analogsim.Crossbar(adc_bits=8))
    x = torch.randn(50, 6)
    analogsim.program(analog, seed=1, faults={"": faults})
    analogsim.drift(analog, "1d")
    analog.eval()
    answer = analog(x)
    analogsim.save_chip(analog, tmp_path / "chip")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip")
    assert torch.equal(analog(x), answer)
    analogsim.drift(analog, "1y")
    analogsim.drift(analog, "1d")
    assert torch.equal(analog(x), answer)
    data = [(x, answer.argmax(1))]
    report = analogsim.evaluate(analog, data, chips=1, seed=1, times=("1d",), faults={"": faults})
    assert report.values.item() == 1.0
    with analogsim.programmed(analog, 1, "1d", faults={"": faults}):
        assert torch.equal(analog(x), answer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda faults: {"fc": faults}, "faults of 'fc', which is no analog layer; there are ''"),
        (lambda faults: {"": faults[:1]}, r"must be a tensor \(2, 4, 6\), got \(1, 4, 6\)"),
        (lambda faults: {"": faults + 1}, r"holds 0 \(works\), 1 \(stuck at g_min\) or 2 .* got \[1, 2, 3\]"),
        (lambda faults: {"": faults - 0.5}, "negative or infinite ones, -0.5 to 1.5"),
        (lambda faults: {"": "stuck"}, "got 'stuck'"),
    ],
)
def test_bad_maps_of_faults(change: object, message: str) -> None:
    _, analog, faults = faulty()
    analogsim.program(analog, seed=3)
    before = analog.analog.chip
    with pytest.raises(ValueError, match=message):
        analogsim.program(analog, seed=1, faults=change(faults))
    assert analog.analog.chip is before
    signed = analogsim.convert(nn.Linear(6, 4), "gaussian")
    with pytest.raises(ValueError, match="has no cells that could be stuck: 'gaussian' acts on weights"):
        analogsim.program(signed, faults={"": faults})


@pytest.mark.parametrize("device", ["pcm", EVERYTHING], ids=str)
def test_without_errors_it_is_the_network_behind_its_converters(device: object) -> None:
    torch.manual_seed(0)
    model = mlp()
    x = torch.randn(16, 6)
    ideal = analogsim.convert(model, device).train()
    with without_errors(ideal):
        torch.testing.assert_close(ideal(x), model.eval()(x))
    assert ideal.training
    coarse = analogsim.convert(model, device, crossbar="standard(adc_bits=4)")
    analogsim.program(coarse, seed=1)
    with without_errors(coarse):
        one, two = coarse(x), coarse(x)
        assert torch.equal(one, two)
        steps = one.unsqueeze(0) - model(x)
        assert 0.01 < steps.abs().mean() < 1
    on_chip = coarse.eval()(x)
    assert not torch.equal(on_chip, one)
    assert coarse[0].analog.chip is not None
