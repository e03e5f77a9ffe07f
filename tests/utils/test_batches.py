"""Whatever loaders yield and networks return."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import analogsim
from analogsim.evaluation.scores import accuracy, cross_entropy
from analogsim.utils.batches import answer, batches_of, inputs_of, is_empty, moved, read_once, split

X, MASK, Y = torch.randn(8, 6), torch.ones(8, 6), torch.randint(3, (8,))


class Net(nn.Module):
    """One network in the manner of several libraries."""

    def __init__(self, returns: str = "tensor") -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)
        self.returns = returns

    def forward(self, x: Tensor, mask: Tensor | None = None, labels: Tensor | None = None) -> Any:
        logits = self.fc(x if mask is None else x * mask)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        if self.returns == "mapping":
            return {"loss": loss, "logits": logits}
        if self.returns == "object":
            return SimpleNamespace(loss=loss, logits=logits)
        return (logits, None) if self.returns == "tuple" else logits


BATCHES: dict[str, Any] = {
    "pair": (X, Y),
    "list": [X, Y],
    "arguments": ((X, MASK), Y),
    "keywords": ({"x": X, "mask": MASK}, Y),
    "mapping": {"x": X, "mask": MASK, "labels": Y},
    "label": {"x": X, "label": Y},
}


@pytest.mark.parametrize("returns", ["tensor", "tuple", "mapping", "object"])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES.keys())
def test_one_score_whatever_the_form(batch: Any, returns: str) -> None:
    torch.manual_seed(0)
    want = analogsim.evaluate(analogsim.convert(Net(), "pcm"), [(X, Y)], chips=2, times=("1d",))
    torch.manual_seed(0)
    got = analogsim.evaluate(analogsim.convert(Net(returns), "pcm"), [batch], chips=2, times=("1d",))
    assert got.clean == want.clean
    assert (got.values == want.values).all()


def test_the_networks_own_loss() -> None:
    analog = analogsim.convert(Net("mapping"), "gaussian(std=0)")
    report = analogsim.evaluate(analog, [BATCHES["mapping"]], chips=1, times=(0,), metric="loss")
    want = analogsim.evaluate(analog, [(X, Y)], chips=1, times=(0,), metric="cross_entropy")
    assert report.clean == pytest.approx(want.clean, rel=1e-6)
    assert report.mean[0] == pytest.approx(want.clean, rel=1e-6)
    with pytest.raises(TypeError, match="give batches that are mappings with 'labels'"):
        analogsim.evaluate(analog, [(X, Y)], chips=1, times=(0,), metric="loss")
    analog = analogsim.convert(Net(), "gaussian(std=0)")
    with pytest.raises(TypeError, match="returned Tensor without a 'loss'"):
        analogsim.evaluate(analog, [BATCHES["mapping"]], chips=1, times=(0,), metric="loss")


def test_calibration_takes_the_same_batches() -> None:
    torch.manual_seed(0)
    ranges = []
    for batch in (X, (X, Y), BATCHES["mapping"], ({"x": X}, Y), ((X,), Y)):
        analog = analogsim.convert(Net(), "pcm", crossbar=analogsim.Crossbar(dac_bits=8, input_range="calibrated"))
        analogsim.calibrate(analog, [batch])
        ranges.append(float(analog.fc.analog.input_range))
    assert len(set(ranges)) == 1


@pytest.mark.parametrize("metric", [accuracy, cross_entropy])
def test_classes_in_front_or_behind_and_targets_that_do_not_count(metric: Any) -> None:
    """Tokens of class -100 (padding) have no part in a sample's score."""
    torch.manual_seed(1)
    output, target = torch.randn(2, 5, 4), torch.randint(4, (2, 5))
    behind = metric(output, target)
    torch.testing.assert_close(metric(output.movedim(-1, 1), target), behind)
    padded = torch.cat((target, torch.full((2, 3), -100)), 1)
    torch.testing.assert_close(metric(torch.cat((output, torch.randn(2, 3, 4)), 1), padded), behind)
    assert behind.shape == (2,)


@pytest.mark.parametrize("batch", [{"x": X}, {"x": X, "labels": None}, X, (X,), (X, Y, Y), (3, Y), 3])
def test_what_is_no_batch(batch: object) -> None:
    with pytest.raises(TypeError, match=r"each batch must be a pair .* or a mapping with 'labels', got"):
        split(batch)
    with pytest.raises(TypeError, match=r"loader must yield inputs .* got int"):
        list(inputs_of([3]))


def test_what_is_no_answer() -> None:
    for output in ({"loss": X}, SimpleNamespace(loss=X), None, ()):
        with pytest.raises(TypeError, match="in which there is no tensor 'logits'"):
            answer(output)
    assert answer({"out": X}) is X


def test_a_packed_sequence_stays_one() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    got = moved({"input": (packed, 1)}, torch.device("cpu"))["input"][0]
    assert isinstance(got, PackedSequence)
    assert torch.equal(got.data, packed.data)


def test_batches_can_be_read_again():
    x = torch.zeros(2, 3)
    assert list(batches_of(x)) == [x]
    named = {"input": x}
    assert list(batches_of(named)) == [named]
    assert isinstance(batches_of(iter([x])), Iterator)
    held = batches_of(iter([x, x]), kept=True)
    assert [len(list(held)), len(list(held))] == [2, 2]
    loader = [x, x]
    assert batches_of(loader) is loader
    assert [list(inputs_of(each)) for each in (x, {**named, "labels": x})] == [[x], [named]]
    assert read_once(x) == [x]
    with pytest.raises(TypeError, match="got a float"):
        batches_of(2.0)


@pytest.mark.parametrize(
    ("inputs", "empty"),
    [
        (torch.zeros(0, 3), True),
        (torch.zeros(1, 3), False),
        ({"a": torch.zeros(0), "b": None}, True),
        ((torch.zeros(0), [torch.zeros(1)]), False),
        ({"texts": ["a"]}, False),
        (torch.tensor(0.0), False),
    ],
)
def test_inputs_without_numbers_are_empty(inputs: Any, empty: bool) -> None:
    assert is_empty(inputs) is empty
