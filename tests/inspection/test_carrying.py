from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

import analogsim
from analogsim import Crossbar, DeviceModel, Gaussian, Mapping, ReadNoise, StaleChipError
from analogsim.errors import NonFiniteError
from analogsim.inspection.carrying import (
    ALSO_DIGITAL,
    CARRIES,
    DOES_NOT_MOVE,
    NEVER_CALLED,
    NO_SAY,
    AuditError,
    audit,
)

DEVICES = ["gaussian", "pcm", [Gaussian(0.1), ReadNoise(0.05)], DeviceModel((Gaussian(0.05),), mapping=Mapping("pair"))]
CROSSBARS = {
    "ideal": Crossbar(),
    "standard": "standard",
    "no range yet": Crossbar(dac_bits=6, adc_bits=6, input_range="calibrated", output_bound="calibrated"),
    "coarse": Crossbar(adc_bits=4, output_bound=12.0),
}


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(144, 8), nn.Linear(8, 3)
    )


def images() -> Tensor:
    return torch.randn(3, 1, 8, 8)


def verdicts(result: Any) -> dict[str, str]:
    return {row.name: row.verdict for row in result.rows}


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("crossbar", CROSSBARS.values(), ids=CROSSBARS)
@pytest.mark.parametrize("programmed", [True, False])
def test_every_layer_carries(device: Any, crossbar: Any, programmed: bool) -> None:
    analog = analogsim.convert(net(), device, crossbar=crossbar)
    if programmed:
        analogsim.program(analog, seed=3)
    result = audit(analog, images())
    assert result.passed, result
    result.check()
    assert verdicts(result) == dict.fromkeys(("0", "5", "6"), CARRIES)
    assert [row.kind for row in result.rows] == ["Conv2d", "Linear", "Linear"]
    assert all(row.calls == 1 and row.change > 0.01 and not row.readers for row in result.rows)


def test_everything_is_left_as_it_was() -> None:
    analog = analogsim.convert(net(), [Gaussian(0.1), ReadNoise(0.1)], crossbar="standard")
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1h")
    untouched = analogsim.convert(analogsim.to_digital(analog), [Gaussian(0.1), ReadNoise(0.1)], crossbar="standard")
    analogsim.program(untouched, seed=1)
    analogsim.drift(untouched, "1h")
    analog.train()
    analog[5].eval()
    x = images()
    before = {name: tensor.clone() for name, tensor in analog.state_dict().items()}
    chips = [layer.analog.chip for layer in (analog[0], analog[5], analog[6])]
    given, random_state = x.clone(), torch.get_rng_state()
    assert audit(analog, x).passed
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(x, given)
    assert [module.training for module in analog] == [True, True, True, True, True, False, True]
    assert [layer.analog.chip for layer in (analog[0], analog[5], analog[6])] == chips
    assert all(layer.analog.observe is None for layer in (analog[0], analog[5], analog[6]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in analog.state_dict().items())
    # The chip's own stream of read noise has not moved either.
    assert torch.equal(analog.eval()(x), untouched.eval()(x))


def test_a_chip_that_was_not_there_is_gone_again() -> None:
    analog = analogsim.convert(net(), "pcm")
    assert audit(analog, images()).passed
    assert analog.training
    assert all(layer.analog.chip is None for layer in (analog[0], analog[5], analog[6]))
    with pytest.raises(RuntimeError, match="boom"):
        audit(analogsim.convert(Broken(), "pcm"), torch.ones(1, 4))


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("boom")


class Past(nn.Module):
    """Reads the weight of its head by itself, in no product that is followed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x).unsqueeze(-2) * self.head.weight).sum(-1) + self.head.bias


class Lent(Past):
    """The same in one product, which goes through the head's crossbar."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.matmul(self.body(x), self.head.weight.t()) + self.head.bias


def test_a_weight_that_is_read_past_its_layer() -> None:
    assert verdicts(audit(analogsim.convert(Lent(), "pcm"), torch.randn(2, 4))) == {"body": CARRIES, "head": CARRIES}
    result = audit(analogsim.convert(Past(), "pcm"), torch.randn(2, 4))
    assert verdicts(result) == {"body": CARRIES, "head": NEVER_CALLED}
    head = result.rows[1]
    assert head.bypassed
    assert (head.calls, head.change) == (0, 0.0)
    assert head.readers == ("aten.mul in (the model itself)",)
    assert not result.passed
    with pytest.raises(AuditError, match=r"analog in name only: 'head'"):
        result.check()
    text = str(result)
    assert "NOT passed: 1 of 2 analog layers carry the output; analog in name only: 'head'; nothing else moved" in text
    assert "'head': analog in name only: its clean weight is used by aten.mul in (the model itself)" in text


def test_torchs_fused_encoder_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    analog = analogsim.convert(encoder, {"linear?": "pcm", "*": None})
    assert audit(analog, torch.randn(2, 3, 8)).passed
    monkeypatch.setattr(type(analog), "activation_relu_or_gelu", 1)  # opens the way to the fused kernel again
    result = audit(analog, torch.randn(2, 3, 8))
    assert verdicts(result) == {"linear1": NEVER_CALLED, "linear2": NEVER_CALLED}
    assert all("_transformer_encoder_layer_fwd" in row.readers[0] for row in result.rows)
    assert not result.passed


class Auxiliary(nn.Module):
    """A second head in training, a layer that has no effect, and one that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.auxiliary = nn.Linear(4, 2)
        self.dropped = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.twice(self.twice(x).relu())
        found = {"logits": self.head(y) + 0 * self.dropped(y)}
        return {**found, "auxiliary": self.auxiliary(y)} if self.training else found


def test_a_branch_not_taken_and_an_answer_that_is_dropped_pass_and_are_told() -> None:
    analog = analogsim.convert(Auxiliary(), "gaussian")
    result = audit(analog, torch.randn(2, 4))
    assert verdicts(result) == {
        "twice": CARRIES,
        "head": CARRIES,
        "auxiliary": NEVER_CALLED,
        "dropped": NO_SAY,
    }
    assert [row.calls for row in result.rows] == [2, 1, 0, 1]
    assert result.passed
    result.check()
    assert "without a say in it: 'dropped'; without a part in this forward: 'auxiliary'" in str(result)
    assert "'dropped': the answer of the digital network does not depend on it either" in str(result)
    result = audit(analogsim.convert(Auxiliary(), {"dropped": None, "*": "gaussian"}), torch.randn(2, 4))
    assert result.passed
    assert "'auxiliary': nothing uses its weight in this forward" in str(result)


def test_no_layer_at_all_is_no_proof() -> None:
    only = analogsim.convert(Auxiliary(), {"auxiliary": "gaussian", "*": None})
    assert not audit(only, torch.randn(2, 4)).passed


@dataclass
class Answer:
    scores: Tensor
    parts: tuple[list[dict[str, Tensor]], None]
    note: str = ""


class Coarse(nn.Module):
    """A linear layer behind which only large changes are seen."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        nn.init.constant_(self.fc.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x)
        return (y / 3).round()


def test_a_coarse_output_is_moved_by_more() -> None:
    analog = analogsim.convert(Coarse(), "gaussian(std=0)")
    assert audit(analog, torch.ones(1, 4)).passed


class Structured(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 40)
        self.kind = kind

    def forward(self, x: Tensor, *, shift: float) -> Any:
        y = self.fc(x) + shift
        return {
            "dataclass": Answer(torch.ones(1), ([{"boxes": y}], None)),
            "classes": y.argmax(1),
            "shape": [{"kept": y[y > 0]}],
            "number": float(y.sum()),
            "complex": (torch.ones(2), torch.complex(y, y)),
            "nested": torch.nested.nested_tensor([y[0], y[1]]),
            "NaN": (y - 100).sqrt(),
        }[self.kind]


@pytest.mark.parametrize("kind", ["dataclass", "classes", "shape", "number", "complex", "nested"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
def test_outputs_of_any_structure(kind: str) -> None:
    result = audit(analogsim.convert(Structured(kind), "gaussian"), torch.randn(8, 4), shift=0.5)
    assert result.passed, result
    assert (result.rows[0].change == float("inf")) == (kind == "shape")


def test_an_output_that_is_nan_either_way_shows_nothing() -> None:
    """Whether the layer carries is hidden by it, and the network broken."""
    with pytest.raises(NonFiniteError, match=r"audit: the answer of Structured holds NaN .*'\(the model itself\)'"):
        audit(analogsim.convert(Structured("NaN"), "gaussian"), torch.randn(8, 4), shift=0.5)
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 3)), "gaussian")
    first = r"first layer .* is '0' \(AnalogLinear\); the inputs of this batch hold"
    with pytest.raises(NonFiniteError, match=f"{first} some already"):
        audit(analog, torch.full((2, 4), torch.nan))
    analog[0].weight.data.fill_(3e38)
    with pytest.raises(NonFiniteError, match=f"{first} none"):
        audit(analog, torch.ones(2, 4))


def test_nan_that_hides_nothing_is_none_of_its_business() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return nn.functional.pad(y, (0, 1), value=torch.nan)

    assert audit(analogsim.convert(Padded(), "gaussian"), torch.randn(2, 4)).passed


class NoTensor(Structured):
    def forward(self, x: Tensor, *, shift: float) -> Any:
        return "nothing"


def test_an_output_without_tensors_is_refused() -> None:
    with pytest.raises(TypeError, match="the output of NoTensor holds no tensor"):
        audit(analogsim.convert(NoTensor(""), {"fc": "gaussian"}), torch.randn(2, 4), shift=0.0)


class Peak(nn.Module):
    """Keeps the largest output that it ever saw, counts its calls, and writes into its input."""

    def __init__(self, parameter: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("peak", torch.zeros(()))
        self.gain = nn.Parameter(torch.ones(()), requires_grad=False)
        self.parameter = parameter

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.fc(x.mul_(2))
        if self.parameter and float(y.detach().abs().max()) > float(self.peak):
            self.gain += 1
        return y * self.gain


def test_what_else_moves_is_found_and_put_back() -> None:
    model = Peak(parameter=True)
    analog = analogsim.convert(model, "gaussian(std=0.0001)")
    x = torch.randn(5, 4)
    model.peak.fill_(1.01 * float(model.fc(2 * x).detach().abs().max()))
    result = audit(analog, x)
    assert result.moved == ("parameter gain",)
    assert verdicts(result) == {"fc": CARRIES}
    assert not result.passed
    with pytest.raises(AuditError, match="moved besides: parameter gain"):
        result.check()
    assert float(model.gain) == 1
    assert float(model.calls) == 0


def test_a_network_that_counts_its_calls_and_writes_into_its_input_passes() -> None:
    x = torch.randn(5, 4)
    given = x.clone()
    result = audit(analogsim.convert(Peak(), "pcm"), x)
    assert result.passed, result
    assert torch.equal(x, given)


def test_a_digital_network_that_is_none_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["analogsim.inspection.carrying"], "to_digital", lambda analog: analog)
    result = audit(analogsim.convert(net(), "pcm"), images())
    assert result.moved == ("the answer of the digital network",)
    assert not result.passed


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x)
        return y + random.random() + functional.dropout(y)


def test_a_network_that_answers_differently_each_time() -> None:
    analog = analogsim.convert(Undecided(), "pcm")
    with pytest.raises(ValueError, match="answers differently to the same input"):
        audit(analog, torch.randn(2, 4))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.words(x))
        return y


def test_a_tied_weight_that_another_module_looks_up_is_told() -> None:
    result = audit(analogsim.convert(Tied(), {"head": "pcm", "*": None}), torch.arange(3))
    assert result.passed
    assert result.rows[0].readers == ("aten.embedding in 'words'",)
    assert "'head': its clean weight is also used by aten.embedding in 'words'" in str(result)


def test_a_stale_chip_is_refused() -> None:
    analog = analogsim.convert(net(), "pcm")
    analogsim.program(analog)
    with torch.no_grad():
        analog[6].weight.mul_(2)
    with pytest.raises(StaleChipError):
        audit(analog, images())


def test_a_network_of_zeros_still_moves() -> None:
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.weight)
    result = audit(analogsim.convert(model, "gaussian"), torch.randn(2, 4))
    assert result.passed
    assert "(the model itself)  Linear  carries" in str(result)


def test_a_compiled_twin() -> None:
    analog = torch.compile(analogsim.convert(net(), "pcm"), backend="eager")
    assert audit(analog, images()).passed


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    result = audit(analogsim.convert(net().to(dtype), "pcm"), images().to(dtype))
    assert result.passed, result


# --- a weight that is used twice, and one without a say -------------------------------------------------------------


class Twice(nn.Module):
    """Uses the weight of a layer once through it, and once in a way of its own."""

    def __init__(self, run: Callable[[Twice, Tensor], Tensor]) -> None:
        super().__init__()
        self.q = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.run(self, x))


def _dropped(self: Twice, x: Tensor) -> Tensor:
    self.q(x)
    return functional.linear(x, self.q.weight, self.q.bias)


TWICE: dict[str, tuple[Callable[[Twice, Tensor], Tensor], str]] = {
    "product": (lambda self, x: self.q(x).relu() @ self.q.weight, ALSO_DIGITAL),
    "linear": (lambda self, x: functional.linear(self.q(x), self.q.weight.t()), ALSO_DIGITAL),
    "element by element": (lambda self, x: self.q(x) + (x.unsqueeze(1) * self.q.weight).sum(-1), ALSO_DIGITAL),
    "scale": (lambda self, x: self.q(x) * self.q.weight.norm(), ALSO_DIGITAL),
    "class": (lambda self, x: self.q(x) + nn.Linear.forward(self.q, x), ALSO_DIGITAL),
    "no effect": (lambda self, x: self.q(x) + 0 * self.q.weight.sum(), CARRIES),
    "dropped": (_dropped, DOES_NOT_MOVE),
}


@pytest.mark.parametrize(("run", "verdict"), TWICE.values(), ids=TWICE.keys())
def test_a_weight_that_is_used_digitally_besides(run: Callable[[Twice, Tensor], Tensor], verdict: str) -> None:
    torch.manual_seed(0)
    model = Twice(run)
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog, seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    version = model.q.weight._version
    result = audit(analog, torch.randn(3, 4))
    assert verdicts(result) == {"q": verdict, "out": CARRIES}
    assert result.passed == (verdict == CARRIES)
    assert not result.moved
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.q.weight._version == version
    if not result.passed:
        with pytest.raises(AuditError, match=r"'q': .*its clean weight is (also )?used by aten"):
            result.check()


class Branching(nn.Linear):
    """A layer that uses its weight twice, in a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight, self.bias) + input @ self.weight.sin().t()


def test_a_layer_that_uses_its_own_weight_digitally_besides() -> None:
    result = audit(analogsim.convert(nn.Sequential(Branching(4, 4)), "pcm"), torch.randn(3, 4))
    assert verdicts(result) == {"0": ALSO_DIGITAL}
    assert "aten.sin in '0'" in result.rows[0].readers


def test_layers_that_compute_with_their_weights_by_design_pass() -> None:
    model = nn.Sequential(
        nn.Embedding(5, 4, padding_idx=0),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        nn.utils.spectral_norm(nn.Linear(4, 4)),
        nn.Linear(4, 4),
    )
    prune.l1_unstructured(model[3], "weight", 0.5)
    result = audit(analogsim.convert(model, "pcm", embeddings=True), torch.arange(5))
    assert result.passed, result
    assert {row.verdict for row in result.rows} == {CARRIES}


@pytest.mark.parametrize("digital", ["a", "b"])
def test_a_tied_layer_that_is_digital_on_request_passes(digital: str) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    chain = nn.Sequential(*model.values())
    name = "0" if digital == "a" else "1"
    result = audit(analogsim.convert(chain, {name: None, "*": "pcm"}), torch.randn(2, 4))
    assert result.passed, result


def test_one_part_of_a_joint_weight_is_digital_on_request() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)[0]

    result = audit(analogsim.convert(Attention(), {"*.k_proj": None, "*": "pcm"}), torch.randn(3, 2, 4))
    assert result.passed, result


class Pooled(nn.Module):
    """As encoders of language are: a pooler that nobody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.pooler = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        self.pooler(y[:1])
        return self.head(y)


@pytest.mark.parametrize("computed", [False, True])
def test_a_pooler_that_nobody_asks_passes_and_is_told(computed: bool) -> None:
    model = Pooled()
    if computed:
        nn.utils.parametrizations.weight_norm(model.pooler[0])
    result = audit(analogsim.convert(model, "pcm"), torch.randn(2, 4))
    assert verdicts(result) == {"body": CARRIES, "pooler.0": NO_SAY, "head": CARRIES}
    assert result.passed
    assert "passed: 2 of 3 analog layers carry the output; without a say in it: 'pooler.0'" in str(result)
