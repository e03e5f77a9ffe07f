from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import (
    AnalogLayer,
    DeviceModel,
    Drift,
    Effect,
    Gaussian,
    Mapping,
    Quantization,
    ReadNoise,
    StaleChipError,
    StuckAt,
)
from analogsim.errors import StaleTwinError

EVERYTHING = [Quantization(16), Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)]


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


# --- stale chips (trap 4) ---------------------------------------------------------------------------------------------


def _step(kind: Callable[..., torch.optim.Optimizer], **options: object) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        parameters = list(model.parameters())
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        kind(parameters, lr=0.1, **options).step()

    return change


def _load(assign: bool) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        model.load_state_dict({key: value * 2 for key, value in model.state_dict().items()}, assign=assign)

    return change


def _in_place(model: nn.Module) -> None:
    with torch.no_grad():
        model[3].weight[0, 0] += 1


def _in_inference_mode(model: nn.Module) -> None:
    with torch.inference_mode():
        model[3].weight.add_(1)


def _data_assigned(model: nn.Module) -> None:
    model[3].weight.data = model[3].weight.data + 1


def _data_assigned_twice(model: nn.Module) -> None:
    for _ in range(2):  # the allocator may hand the first address out again
        _data_assigned(model)


def _assigned(model: nn.Module) -> None:
    model[3].weight = nn.Parameter(model[3].weight.detach() + 1)


def _other_shape(model: nn.Module) -> None:
    model[3].weight = nn.Parameter(torch.zeros(2, 8))


def _swapped(model: nn.Module) -> None:
    torch.utils.swap_tensors(model[3].weight, nn.Parameter(torch.zeros(3, 8)))


def _initialised(model: nn.Module) -> None:
    nn.init.normal_(model[3].weight)


def _vector(model: nn.Module) -> None:
    vector = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(vector.detach() * 2, model.parameters())


def _clipped(model: nn.Module) -> None:
    analogsim.clip_weights(analogsim.convert(model, "pcm"), 0.5)


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "sgd": _step(torch.optim.SGD),
    "adam": _step(torch.optim.Adam, foreach=False),
    "adam foreach": _step(torch.optim.Adam, foreach=True),
    "adam fused": _step(torch.optim.Adam, fused=True),
    "load_state_dict": _load(assign=False),
    "load_state_dict assign": _load(assign=True),
    "in place": _in_place,
    "in place, inference mode": _in_inference_mode,
    "data =": _data_assigned,
    "data = twice": _data_assigned_twice,
    "assigned": _assigned,
    "another shape": _other_shape,
    "swapped": _swapped,
    "init": _initialised,
    "from vector": _vector,
    "clip_weights": _clipped,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_trap_04_changed_weights_are_never_answered_by_the_old_chip(change: Callable[[nn.Module], None]) -> None:
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog, seed=0)
    analog.eval()
    x = torch.ones(1, 6)
    analog(x)
    change(model)
    with pytest.raises(StaleChipError, match=r"layer '[03]'.*changed after.*analogsim.program again"):
        analog(x)
    with pytest.raises(StaleChipError):  # and not only the first time
        analog(x)
    # What is of another shape asks for another twin, and not for another chip.
    kind = StaleTwinError if change is _other_shape else StaleChipError
    for use in (
        lambda: analogsim.drift(analog, "1d"),
        lambda: analogsim.save_chip(analog, "never-written"),
        lambda: analogsim.to_digital(analog, "programmed"),
    ):
        with pytest.raises(kind):
            use()
    if change is not _other_shape:
        with analogsim.programmed(analog):  # a chip of its own
            analog(x)
        analogsim.evaluate(analog, [(x, torch.zeros(1, dtype=torch.long))], chips=1, times=(0,))
    with pytest.raises(StaleChipError):
        analog(x)
    if change is _other_shape:
        with pytest.raises(StaleTwinError, match=r"layer '3': its weight is \(2, 8\) and was \(3, 8\) at convert"):
            analogsim.program(analog, seed=0)
    else:
        analogsim.program(analog, seed=0)
        analog(x)


LOOKS: dict[str, Callable[[nn.Module], object]] = {
    "eval": lambda analog: analog.eval()(torch.ones(1, 6)),
    "train and eval": lambda analog: analog.train().eval()(torch.ones(1, 6)),
    "mode of the layer": lambda analog: (analog[3].eval(), analog(torch.ones(1, 6))),
    "drift": lambda analog: analogsim.drift(analog, 1),
    "save": lambda analog: analogsim.save_chip(analog, "never-written"),
    "to_digital": lambda analog: analogsim.to_digital(analog, "programmed"),
    "after programmed": lambda analog: _after_programmed(analog),
    "after evaluate": lambda analog: _after_evaluate(analog),
    "after an optimizer step": lambda analog: (
        _step(torch.optim.SGD)(nn.Linear(1, 1)),
        analog(torch.ones(1, 6)),
    ),
}


def _after_programmed(analog: nn.Module) -> None:
    with analogsim.programmed(analog):
        pass
    analog(torch.ones(1, 6))


def _after_evaluate(analog: nn.Module) -> None:
    analogsim.evaluate(analog, [(torch.ones(1, 6), torch.zeros(1, dtype=torch.long))], chips=1, times=(0,))
    analog(torch.ones(1, 6))


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_writes_through_data_are_found_out(look: Callable[[nn.Module], object]) -> None:
    analog = analogsim.convert(mlp(), "pcm").eval()
    analogsim.program(analog, seed=0)
    analog(torch.ones(1, 6))
    analog[3].weight.data.add_(1)  # leaves no trace in torch's version counter
    with pytest.raises(StaleChipError):
        look(analog)


def test_equal_weights_and_other_layers_do_not_make_it_stale() -> None:
    model = mlp()
    model.insert(4, nn.Linear(3, 3))
    analog = analogsim.convert(model, {"4": None, "*": "pcm"}).eval()
    analogsim.program(analog, seed=0)
    x = torch.ones(1, 6)
    first = analog(x)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        model[0].weight.add_(1)
    with pytest.raises(StaleChipError):
        analog(x)
    model.load_state_dict(state)
    assert torch.equal(analog(x), first)
    with torch.no_grad():
        model[4].weight.add_(1)
        model[3].bias.add_(1)  # digital, and live
    assert not torch.equal(analog(x), first)


# --- what compensation and read noise make of a weight ----------------------------------------------------------------


def test_the_gain_is_what_the_formula_says() -> None:
    analog = analogsim.convert(nn.Linear(6, 4), [Gaussian(0.05), Drift(0.05, 0.02)])
    analogsim.program(analog, seed=0)
    clean = analog.weight.detach()
    fresh = chip_weights(analog)[""]
    analogsim.drift(analog, "1d", compensation=None)
    raw = chip_weights(analog)[""]
    analogsim.drift(analog, "1d")
    torch.testing.assert_close(chip_weights(analog)[""], raw * ((clean * fresh).sum() / (clean * raw).sum()))
    analogsim.drift(analog, 0)
    assert torch.equal(chip_weights(analog)[""], fresh)


def test_read_noise_differs_from_call_to_call_and_starts_anew_with_drift() -> None:
    analog = analogsim.convert(mlp().eval(), EVERYTHING)
    analogsim.program(analog, seed=0)
    x = torch.randn(2, 6)
    programmed = [analog(x) for _ in range(3)]
    analogsim.drift(analog, "1d")
    day = [analog(x) for _ in range(3)]
    analogsim.drift(analog, "1d")
    assert all(torch.equal(analog(x), answer) for answer in day)
    analogsim.program(analog, seed=0)
    assert all(torch.equal(analog(x), answer) for answer in programmed)
    answers = [*programmed, *day]
    assert all(not torch.equal(a, b) for i, a in enumerate(answers) for b in answers[:i])


SHAPES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "linear, sequence": (lambda: nn.Linear(6, 3), (2, 6)),
    "conv2d stride": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 5, 5)),
    "conv2d reflect": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 4, 4)),
    "conv2d groups": (lambda: nn.Conv2d(4, 4, (2, 3), groups=2, bias=False), (4, 4, 4)),
}
READ_DEVICES = {
    "signed": DeviceModel((Gaussian(0.05), ReadNoise(0.05, law="proportional"))),
    "pair": DeviceModel((Gaussian(0.05), ReadNoise(0.05)), g_min=1.0, mapping=Mapping("pair")),
}


@pytest.mark.parametrize("device", READ_DEVICES.values(), ids=READ_DEVICES.keys())
@pytest.mark.parametrize(("make", "shape"), SHAPES.values(), ids=SHAPES.keys())
def test_read_noise_is_exactly_that_of_a_weight_sampled_per_use(
    make: Callable[[], nn.Module], shape: tuple[int, ...], device: DeviceModel
) -> None:
    """Trap 27: without sampling weights, the law of sampling them: mean and variance within 5 standard errors."""
    layer = make()
    analog = analogsim.convert(layer, device).eval()
    analogsim.program(analog, seed=0)
    x = torch.randn(shape)
    uses = 4000
    with torch.no_grad():
        fast = analog(x.expand(uses, *shape))
        # The slow way: conductances, a fresh error of every cell for every use, and the digital layer on top.
        written = layers_of(analog)[0].analog.chip.written
        g = written.programmed
        size = 0.05 * g.abs() if device is READ_DEVICES["signed"] else torch.full_like(g, 0.05 * device.g_max)
        slow = torch.stack(
            [
                torch.func.functional_call(
                    layer, {"weight": device.to_weight(g + size * torch.randn_like(g), written)}, (x.unsqueeze(0),)
                )[0]
                for _ in range(500)
            ]
        )
    mean, variance = slow.mean(0), slow.var(0)
    assert ((fast.mean(0) - mean).abs() < 5 * (variance / 500 + variance / uses).sqrt()).all()
    # The variance of a normal sample's variance is 2 var^2/(n - 1).
    assert ((fast.var(0) - variance).abs() < 5 * variance * (2 / 499 + 2 / (uses - 1)) ** 0.5).all()
    # No correlation between one use and the next.
    centred = fast - fast.mean(0)
    assert ((centred[1:] * centred[:-1]).mean(0).abs() < 5 * fast.var(0) / uses**0.5).all()


def test_read_noise_variance_in_closed_form() -> None:
    """sum_j s^2 x_j^2 with s = 0.1 of the largest weight; standard error of a variance is sqrt(2/n)."""
    layer = nn.Linear(6, 4)
    analog = analogsim.convert(layer, ReadNoise(0.1)).eval()
    analogsim.program(analog, seed=0)
    x = torch.randn(6)
    uses = 20_000
    with torch.no_grad():
        error = analog(x.expand(uses, 6)) - layer(x)
    expected = (0.1 * layer.weight.abs().max()) ** 2 * x.square().sum()
    assert ((error.var(0) / expected - 1).abs() < 5 * (2 / uses) ** 0.5).all()
    # Outputs are independent of one another.
    correlation = torch.corrcoef(error.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / uses**0.5


def test_conv_read_noise_is_independent_between_positions() -> None:
    layer = nn.Conv2d(2, 1, 3)
    analog = analogsim.convert(layer, ReadNoise(0.1)).eval()
    analogsim.program(analog, seed=0)
    x = torch.randn(2, 4, 4)
    uses = 10_000
    with torch.no_grad():
        error = (analog(x.expand(uses, 2, 4, 4)) - layer(x)).flatten(1)
        power = functional.conv2d(x.square().unsqueeze(0), torch.ones(1, 2, 3, 3)).flatten()
    expected = (0.1 * layer.weight.abs().max()) ** 2 * power
    assert ((error.var(0) / expected - 1).abs() < 5 * (2 / uses) ** 0.5).all()
    assert (torch.corrcoef(error.T) - torch.eye(4)).abs().max() < 5 / uses**0.5


class _Diverging(Effect):
    """Infinite in one stage."""

    def __init__(self, stage: str) -> None:
        object.__setattr__(self, "stage", stage)

    def program(self, g, cells, noise):
        return g / 0 if self.stage == "program" else g

    def age(self, g, t, cells, drawn):
        return g / 0 if self.stage == "age" and t > 0 else g

    def read(self, g, t, cells, noise):
        return g / 0 if self.stage == "read" and t > 0 else g


@pytest.mark.parametrize("stage", ["program", "age", "read"])
def test_a_stage_that_diverges_is_named(stage):
    analog = analogsim.convert(nn.Sequential(nn.Linear(3, 2)), DeviceModel((_Diverging(stage),)))
    told = r"layer '0': device '_Diverging' made NaN or infinite conductances at .*: .*"
    if stage == "program":
        with pytest.raises(ValueError, match=told + r"program or hold \(_Diverging"):
            analogsim.program(analog)
        return
    analogsim.program(analog)
    with pytest.raises(ValueError, match=told + ("_Diverging.age" if stage == "age" else r"read \(_Diverging")):
        analogsim.drift(analog, "1d")


@pytest.mark.parametrize("batched", [("weight",), ("bias",), ("weight", "bias")])
def test_many_weights_for_one_chip_are_refused(batched: tuple[str, ...]) -> None:
    """Whichever of the weight and a bias on the crossbar vmap makes many."""
    model = nn.Linear(4, 3)
    analog = analogsim.convert(model, DeviceModel((Gaussian(0.05),), mapping=Mapping("pair", bias_rows=1)))
    analogsim.program(analog.eval(), seed=0)
    many = {name: torch.stack([value.detach()] * 2) for name, value in model.named_parameters() if name in batched}

    def answer(own: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(analog, own, (torch.ones(1, 4),))
        return out

    with pytest.raises(StaleChipError, match="vmap gives it many weights, and one is on the chip"):
        torch.func.vmap(answer, randomness="same")(many)


@pytest.mark.parametrize("crossbar", ["ideal", "standard"])
def test_a_factor_of_a_column_is_the_same_chip_with_a_digital_factor(crossbar: str) -> None:
    """So a scale of outputs that is learned is learned with the weights, where each column has its own largest one."""
    torch.manual_seed(0)
    model = nn.Linear(6, 3, bias=False)
    factors = torch.tensor([[0.25], [1.0], [8.0]])  # powers of two: nothing rounds
    other = nn.Linear(6, 3, bias=False)
    with torch.no_grad():
        other.weight.copy_(model.weight * factors)
    x = torch.randn(9, 6)
    answers = []
    for network in (model, other):
        analog = analogsim.convert(network, "pcm", crossbar=crossbar)
        with analogsim.programmed(analog, 3, "1y", compensation="column"):
            answers.append(analog(x).detach())
    torch.testing.assert_close(answers[1], answers[0] * factors.T, rtol=1e-5, atol=1e-6)
