"""Errors of single layers: none where the hardware is exact, and what a programmed layer answers where it is not."""

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Effect, Mapping
from analogsim.chip.compensation import gain_of
from analogsim.chip.layer_errors import Chips, Trial, best_trial, chips_for, is_better, measure_layers
from analogsim.errors import BypassedError
from analogsim.layers import matrices_of


class Nothing(Effect):
    """An effect without an effect."""


EXACT = DeviceModel((Nothing(),), mapping=Mapping("pair"))
ONE = Chips(range(2), (0.0,), None)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells = kind(6, 5, num_layers=2, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.cells(x)[0]


class Attended(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class LookedUp(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 6, padding_idx=0), nn.Linear(6, 9)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.table(x))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return x @ self.weight.t()


NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), lambda: torch.randn(7, 6)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2, stride=2)
        ),
        lambda: torch.randn(3, 4, 5, 5),
    ),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: torch.randn(3, 4, 6)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: torch.randn(3, 4, 6)),
    "attention": (Attended, lambda: torch.randn(3, 4, 6)),
    "encoder": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), lambda: torch.randn(3, 4, 6)),
    "table": (LookedUp, lambda: torch.randint(9, (3, 4))),
    "shared": (lambda: nn.Sequential(*[nn.Linear(6, 6)] * 3), lambda: torch.randn(7, 6)),
    "functional": (Functional, lambda: torch.randn(3, 2, 6)),
}


def measured(analog, x, *, chips=ONE, **changes):
    trials = {}
    for matrix in matrices_of(analog):
        now = Trial.now(matrix.analog)
        trials[matrix] = [now, *([Trial(**{**vars(now), **changes})] if changes else [])]
    return {matrix.analog.name: errors for matrix, errors in measure_layers(analog, [x], trials, chips, "test").items()}


@pytest.mark.parametrize("crossbar", ["ideal", Crossbar(rows=4, output_bound=1e6), Crossbar(dac_bits=24)], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_exact_hardware_has_no_error_in_any_layer(name, crossbar):
    torch.manual_seed(0)
    build, inputs = NETWORKS[name]
    model, x = build(), inputs()
    with_table = {"embeddings": True, "example": x}
    analog = analogsim.convert(model, EXACT, crossbar=crossbar, **with_table)
    found = measured(analog, x)
    assert found.keys() == {matrix.analog.name for matrix in matrices_of(analog)}
    for errors in found.values():
        assert errors.shape == (1, 2)
        assert float(errors.max()) < 1e-9
    noisy = measured(analogsim.convert(model, "gaussian(std=0.1)", crossbar=crossbar, **with_table), x)
    assert all(1e-4 < float(errors.min()) < 1 for errors in noisy.values())


@pytest.mark.parametrize("mapping", [Mapping(), Mapping(bias_rows=1)], ids=["bias digital", "bias rows"])
@pytest.mark.parametrize("crossbar", ["ideal", "standard(output_noise=0, rows=8)"])
def test_an_error_is_that_of_the_programmed_layer(mapping, crossbar):
    """Against a chip that answers by itself, the slow obvious way."""
    torch.manual_seed(0)
    model = nn.Linear(12, 9)
    x = torch.randn(40, 12)
    device = analogsim.as_device_model("pcm").replace(mapping=mapping)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    chips = Chips(range(5, 7), (3600.0,), gain_of("column"))
    (found,) = measured(analog, x, chips=chips).values()
    clean = model(x).detach().double()
    for place, seed in enumerate((5, 6)):
        with analogsim.programmed(analog, seed, "1h", compensation="column"):
            wrong = (analog(x).detach().double() - clean).square().mean()
        assert float(found[0, place]) == pytest.approx(float(wrong / clean.var(correction=0)), rel=1e-4)


def test_a_layer_gets_exact_inputs():
    """What the layers before it lose does not count."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    x = torch.randn(30, 6)
    whole = measured(analogsim.convert(model, "pcm"), x)
    alone = measured(analogsim.convert(model, {"2": "pcm", "*": None}), x)
    torch.testing.assert_close(whole["2"], alone["2"])


def test_batches_add_up_and_groups_change_nothing(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    analog = analogsim.convert(model, "pcm")
    x = torch.randn(30, 6)
    trials = {matrix: [Trial.now(matrix.analog)] for matrix in matrices_of(analog)}
    whole = measure_layers(analog, [x], trials, ONE, "test")
    monkeypatch.setattr("analogsim.chip.layer_errors._MOST_CELLS", 1)
    parts = measure_layers(analog, list(x.split(7)), trials, ONE, "test")
    for matrix, errors in whole.items():
        torch.testing.assert_close(parts[matrix], errors)


def test_the_twin_is_as_before():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 4)).train()
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog, 3)
    states = [matrix.analog for matrix in matrices_of(analog)]
    before = [(state.device, state.chip, state.input_range) for state in states]
    measured(analog, torch.randn(5, 6), device=analogsim.as_device_model("pcm(copies=2)"))
    assert [(state.device, state.chip, state.input_range) for state in states] == before
    assert analog[1].training
    assert all(state.answering is None and state.crossbar == analog[0].analog.crossbar for state in states)
    analog.eval()
    assert analog(torch.randn(5, 6)).shape == (5, 4)


def test_what_inputs_are_refused():
    analog = analogsim.convert(nn.Linear(6, 4), "pcm")
    with pytest.raises(ValueError, match="the loader is empty"):
        measure_layers(analog, [], {matrix: [Trial.now(matrix.analog)] for matrix in matrices_of(analog)}, ONE, "test")
    with pytest.raises(ValueError, match="test: batch 0 of the inputs holds NaN or infinite values"):
        measured(analog, torch.full((2, 6), float("nan")))

    class Past(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            return x

    with pytest.raises(BypassedError, match="none of the 1 analog layers had a part"):
        measured(analogsim.convert(Past(), "pcm"), torch.randn(2, 6))


@pytest.mark.parametrize(
    ("device", "time", "ages"),
    [
        ("pcm", None, (1.0, 365 * 86400.0)),
        ("pcm", "1h", (3600.0,)),
        ("pcm", ["1h", 7], (7.0, 3600.0)),
        ("reram-wan2022", None, (1.0, 2 * 86400.0)),
        ("gaussian", None, (365 * 86400.0,)),
        ("gaussian", 3, (3.0,)),
    ],
)
def test_the_ages_of_the_chips(device, time, ages):
    analog = analogsim.convert(nn.Linear(6, 4), device)
    chips = chips_for(analog, 3, time, None, 7, "test")
    assert (list(chips.seeds), chips.ages) == ([7, 8, 9], ages)


@pytest.mark.parametrize(
    ("chips", "time", "message"),
    [
        (2, (), "test: time must be a sequence such as"),
        (0, None, "test: chips must be an integer >= 1, got 0"),
        (True, None, "got True"),
        (2, "1z", "cannot read '1z'"),
    ],
)
def test_chips_that_cannot_be(chips, time, message):
    with pytest.raises(ValueError, match=message):
        chips_for(analogsim.convert(nn.Linear(6, 4), "pcm"), chips, time, None, 0, "test")


def test_what_is_better():
    before = torch.tensor([1.0, 1.1, 0.9])
    assert is_better(before, before - 0.1)
    assert not is_better(before, before - 0.001), "less than one percent"
    assert not is_better(before, torch.tensor([0.5, 1.6, 0.6])), "within two standard errors"
    assert not is_better(before, torch.tensor([0.1, float("nan"), 0.1]))
    assert is_better(torch.tensor([1.0]), torch.tensor([0.9]))


def test_the_best_trial_is_the_first_unless_another_is_better():
    errors = torch.tensor([[1.0, 1.1, 0.9], [0.8, 0.9, 0.7], [0.9, 1.0, 0.8], [float("nan")] * 3])
    assert best_trial(errors) == 1
    assert best_trial(errors[[1, 0, 2]]) == 0
