"""The digital product is asked once for each kind of input, and its errors are the twin's."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import Crossbar
from analogsim.layers.products.inputs import TakenInputs

STANDARD = "standard(rows=4)"


def counting(times: list[int], wrong: bool = False) -> Any:
    def product() -> None:
        times.append(1)
        if wrong:
            raise RuntimeError("no such input")

    return product


def test_each_kind_is_asked_once() -> None:
    taken, times = TakenInputs(), list[int]()
    x = torch.randn(2, 3)
    for given in (x, x.clone(), torch.zeros(2, 3)):
        taken.ask(counting(times), "its own", given)
    assert len(times) == 1
    others = (x[:1], x.double(), x.long(), x.to_sparse(), x.to("meta"), x.unsqueeze(0))
    for given in (*others, *others):
        taken.ask(counting(times), "its own", given)
    assert len(times) == 1 + len(others)
    taken.ask(counting(times), "its own", x, x)
    taken.ask(counting(times), "another", x)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            taken.ask(counting(times), "its own", x)
    assert len(times) == 4 + len(others)
    for again in (copy.deepcopy(taken), pickle.loads(pickle.dumps(taken))):
        again.ask(counting(times), "its own", x)
    assert len(times) == 4 + len(others)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_is_not_known_is_asked_each_time() -> None:
    taken, times = TakenInputs(), list[int]()
    x = torch.randn(2, 3)
    for given in ([1.0], None, torch.nested.as_nested_tensor([x, x])):
        for _ in range(2):
            taken.ask(counting(times), "its own", given)
    for _ in range(2):
        taken.ask(counting(times), None, x)
    assert len(times) == 8
    for _ in range(2):  # and what is refused is not remembered
        with pytest.raises(RuntimeError, match="no such input"):
            taken.ask(counting(times, wrong=True), "its own", x)
    assert len(times) == 10


def test_it_forgets_rather_than_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analogsim.layers.products.inputs._MOST", 2)
    taken, times = TakenInputs(), list[int]()
    for size in (1, 2, 3, 3, 1):
        taken.ask(counting(times), "its own", torch.zeros(size))
    assert len(times) == 4


LAYERS: list[tuple[nn.Module, Tensor]] = [
    (nn.Linear(6, 3), torch.randn(2, 7)),  # the case of the issue
    (nn.Linear(6, 3), torch.randn(2, 5)),
    (nn.Linear(6, 3), torch.tensor(1.0)),
    (nn.Linear(6, 3), torch.randn(2, 6, dtype=torch.float64)),
    (nn.Linear(6, 3), torch.ones(2, 6, dtype=torch.long)),
    (nn.Linear(6, 3), torch.randn(2, 6, device="meta")),
    (nn.Conv2d(4, 3, 3), torch.randn(2, 5, 6, 6)),
    (nn.Conv2d(4, 3, 3), torch.randn(2, 3, 6, 6)),
    (nn.Conv2d(4, 3, 3), torch.randn(2, 4, 2, 6)),
    (nn.Conv2d(4, 3, 3), torch.randn(6, 6)),
    (nn.Conv2d(4, 4, 3, groups=2), torch.randn(2, 6, 6, 6)),
    (nn.ConvTranspose1d(4, 3, 3), torch.randn(2, 5, 6)),
    (nn.ConvTranspose1d(4, 3, 3, bias=False), torch.randn(2, 4, 6, dtype=torch.float64)),
]


@pytest.mark.parametrize("place", range(len(LAYERS)))
def test_errors_are_those_of_the_digital_layer(place: int) -> None:
    """In type and in words, in training, on a chip and in `calibrate`, behind each kind of converter."""
    layer, x = LAYERS[place]
    good = torch.randn(1, *layer.weight.shape[1:]) if isinstance(layer, nn.Linear) else torch.randn(1, 4, 6, 6)
    good = good if not isinstance(layer, nn.ConvTranspose1d) else good[:, :, 0]
    with pytest.raises(Exception) as wanted:  # noqa: PT011 - that is asked
        layer(x)
    for crossbar in (STANDARD, Crossbar(output_noise=0.1), "standard(input_range='calibrated')"):
        analog = analogsim.convert(layer, "pcm", crossbar=crossbar)
        analogsim.calibrate(analog, [good])
        analogsim.program(analog)
        for mode in (True, False):
            analog.train(mode)
            analog(good)
            with pytest.raises(type(wanted.value)) as got:
                analog(x)
            assert str(got.value) == str(wanted.value)
    if x.device.type != "meta":  # which calibrate brings where the weights are
        with pytest.raises(type(wanted.value)):
            analogsim.calibrate(analog, [x])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("crossbar", ["ideal", STANDARD])
def test_sparse_and_nested_inputs_are_taken_as_by_the_digital_layer(crossbar: str) -> None:
    layer = nn.Linear(6, 3)
    analog = analogsim.convert(layer, "pcm", crossbar=crossbar)
    analogsim.program(analog)
    rows = [torch.randn(2, 6), torch.randn(3, 6)]
    analog.eval()
    torch.testing.assert_close(analog(rows[0].to_sparse()), analog(rows[0]), rtol=0.1, atol=0.4)
    for layout in (torch.strided, torch.jagged):
        nested = analog(torch.nested.as_nested_tensor(rows, layout=layout))
        assert nested.is_nested
        assert [row.shape for row in nested.unbind()] == [(2, 3), (3, 3)]
        wide = torch.nested.as_nested_tensor([torch.randn(2, 7), torch.randn(3, 7)], layout=layout)
        with pytest.raises(RuntimeError):
            layer(wide)
        with pytest.raises(RuntimeError):
            analog(wide)


def test_a_call_with_another_product_is_another_kind() -> None:
    """A kernel that fits with the padding of one call does not without it."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(2, 1, 3))
            self.padding = 1

        def forward(self, input: Tensor) -> Tensor:
            return functional.conv1d(input, self.kernel, padding=self.padding)

    analogsim.register_routed(Padded, {"kernel": None})
    model = Padded()
    analog = analogsim.convert(model, "pcm", crossbar=STANDARD)
    x = torch.randn(1, 1, 2)
    assert analog(x).shape == (1, 2, 2)
    analog.padding = 0
    with pytest.raises(RuntimeError, match="Kernel size"):
        analog(x)


@pytest.mark.parametrize("mode", [True, False])
def test_compiled_code_says_it_too(mode: bool) -> None:
    analog = analogsim.convert(nn.Linear(6, 3), "gaussian", crossbar=STANDARD).train(mode)
    analogsim.program(analog)
    compiled = torch.compile(analog, fullgraph=True, backend="aot_eager")
    assert compiled(torch.randn(2, 6)).shape == (2, 3)
    with pytest.raises(Exception, match=r"shapes|reduction|size"):
        compiled(torch.randn(2, 7))


def test_mapped_over_inputs() -> None:
    analog = analogsim.convert(nn.Linear(6, 3), "pcm", crossbar=STANDARD)
    analogsim.program(analog)
    analog.eval()
    assert torch.func.vmap(analog, randomness="different")(torch.randn(4, 2, 6)).shape == (4, 2, 3)
    with pytest.raises(RuntimeError, match="shapes"):
        torch.func.vmap(analog, randomness="different")(torch.randn(4, 2, 7))
