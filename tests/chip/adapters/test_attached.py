from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.chip.adapters.attached import adapters_as_they_are, adapters_of
from analogsim.layers.module import matrices_of


def twin(**more: Any) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 5))
    return analogsim.convert(model, "pcm", **more).eval()


def shift(analog: Any) -> None:
    """Other numbers, and every answer becomes class 1."""
    with torch.no_grad():
        for value in analogsim.adapter_parameters(analog):
            value.add_(0.5)
        matrices_of(analog)[-1].analog.adapter.offset[0, 1] += 100.0


def test_what_they_take_is_counted() -> None:
    found = analogsim.add_adapters(twin(), 3)
    (conv, last) = found.matrices
    assert (conv.name, conv.outputs, conv.rank, conv.numbers) == ("0", 4, 3, 2 * 4 + 3 * (18 + 4))
    assert conv.multiply_adds == 4 + 3 * (18 + 4)
    assert last.numbers == 2 * 5 + 3 * (64 + 5)
    assert found.numbers == conv.numbers + last.numbers
    assert f"{found.numbers:,} numbers stored" in str(found)
    assert str(analogsim.add_adapters(twin(), ages=("1h", "1y"))).endswith("36 numbers stored, vectors for 1h, 1y")
    grouped = analogsim.convert(nn.Conv1d(6, 6, 3, groups=6), "pcm")
    assert analogsim.add_adapters(grouped, 1).matrices[0].multiply_adds == 6 + 6 * 3 + 6


def test_summary_shows_them() -> None:
    analog = twin()
    assert "adapter" not in str(analogsim.summary(analog))
    numbers = analogsim.add_adapters(analog).numbers
    assert [row.adapter for row in analogsim.summary(analog).rows] == [8, 10]
    assert str(analogsim.summary(analog)).endswith(f", {numbers} digital numbers in adapters")


def test_ranks_by_name() -> None:
    analog = twin()
    found = analogsim.add_adapters(analog, {"3": 100, "*": None})
    assert [(each.name, each.rank) for each in found.matrices] == [("3", 5)], "no more than outputs"
    assert analog[0].analog.adapter is None
    analogsim.remove_adapters(analog)
    assert adapters_of(analog).matrices == ()
    analogsim.remove_adapters(analog)


def test_tables_have_scales_and_offsets_alone() -> None:
    """A product beside would move entries that training has not met."""
    analog = analogsim.convert(nn.Embedding(9, 5), "pcm", embeddings=True)
    assert analogsim.add_adapters(analog, 2).matrices[0].rank == 0


def test_they_are_no_parameters_and_in_no_state_dict() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    analog = analogsim.convert(model, "pcm")
    analogsim.add_adapters(analog, 1)
    assert list(analog.state_dict()) == list(model.state_dict())
    assert len(list(analog.parameters())) == 2
    assert len(analogsim.adapter_parameters(analog)) == 4
    analog.load_state_dict(model.state_dict(), strict=True)


def test_they_act_on_fresh_draws_and_any_chip_but_not_on_the_digital_network() -> None:
    analog, x = twin(), torch.randn(3, 2, 6, 6)
    analogsim.program(analog, 1)
    first = analog(x)
    analogsim.add_adapters(analog)
    shift(analog)
    assert not torch.allclose(analog(x), first)
    clean = analogsim.to_digital(analog)(x)
    analogsim.program(analog, 2)
    second = analog(x)
    analogsim.remove_adapters(analog)
    assert not torch.allclose(analog(x), second)
    torch.testing.assert_close(analogsim.to_digital(analog)(x), clean)


def test_calibrate_outputs_matches_to_the_digital_network_before_them() -> None:
    """What it measures of the first layer knows nothing of its adapter."""
    analog, x = twin(), torch.randn(64, 2, 6, 6)
    analogsim.program(analog, 1)
    analogsim.calibrate_outputs(analog, x)
    wanted = analog[0].analog.chip.correction.stage
    analogsim.add_adapters(analog)
    shift(analog)
    analogsim.calibrate_outputs(analog, x)
    found = analog[0].analog.chip.correction.stage
    torch.testing.assert_close(found.scale, wanted.scale)
    torch.testing.assert_close(found.offset, wanted.offset)


def test_a_chip_in_hand_gives_them_back() -> None:
    """What on_chip does to adapters is judged and undone: put on where there were none, changed, taken off."""
    analog = twin()
    x, y = torch.randn(20, 2, 6, 6), torch.randint(5, (20,))

    def judged(on_chip: Any) -> Any:
        return analogsim.evaluate(analog, [(x, y)], chips=1, times=["1d"], on_chip=on_chip).mean[0]

    def put_on(analog: nn.Module, seed: int, t: float) -> None:
        analogsim.add_adapters(analog)
        shift(analog)

    plain = judged(None)
    assert judged(put_on) != plain
    assert adapters_of(analog).matrices == ()
    put_on(analog, 0, 0.0)
    changed = judged(None)
    assert changed != plain
    before = [value.detach().clone() for value in analogsim.adapter_parameters(analog)]
    assert judged(lambda analog, seed, t: analogsim.remove_adapters(analog)) == plain
    judged(lambda analog, seed, t: shift(analog))
    assert all(torch.equal(value, old) for value, old in zip(analogsim.adapter_parameters(analog), before, strict=True))
    assert judged(None) == changed


def test_what_is_made_of_a_twin_keeps_them() -> None:
    """Its variants in a sensitivity, several chips at once, and the question that a journal remembers."""
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), "drift").eval()
    data = [(torch.randn(40, 4), torch.randint(3, (40,)))]
    analogsim.add_adapters(analog)
    with torch.no_grad():
        analog[2].analog.adapter.offset[0, 1] = 100.0  # every answer is class 1
    share = float((data[0][1] == 1).float().mean())
    for together in (1, 3):
        report = analogsim.evaluate(analog, data, chips=3, times=["1d"], together=together)
        assert report.mean[0] == pytest.approx(share)
    found = analogsim.sensitivity(analog, data, chips=1, t="1d")
    assert found.reports["2"].mean[0] == pytest.approx(share), "which has the adapter"


def test_a_journal_knows_other_numbers(tmp_path: Any) -> None:
    analog = twin()
    data = [(torch.randn(20, 2, 6, 6), torch.randint(5, (20,)))]
    analogsim.add_adapters(analog)
    how = {"chips": 1, "times": ["1d"], "journal": tmp_path / "chips.jsonl"}
    analogsim.evaluate(analog, data, **how)
    analogsim.evaluate(analog, data, **how)
    shift(analog)
    with pytest.raises(ValueError, match="holds chips of another question, with another hardware"):
        analogsim.evaluate(analog, data, **how)


def test_a_chip_other_than_they_were_trained_on_is_told() -> None:
    analog = twin()
    analogsim.program(analog, 3)
    analogsim.fine_tune(analog, torch.randn(8, 2, 6, 6), steps=1)
    analogsim.program(analog, 3)
    with pytest.warns(UserWarning, match="trained on chip 3, and this is chip 4"):
        analogsim.program(analog, 4)


def test_as_they_are_keeps_gradients_too() -> None:
    analog = twin()
    analogsim.add_adapters(analog)
    restore = adapters_as_they_are(analog)
    for value in analogsim.adapter_parameters(analog):
        value.grad = torch.ones_like(value)
    again = copy.deepcopy(analog)
    shift(analog)
    restore()
    assert all(value.grad is None for value in analogsim.adapter_parameters(analog))
    assert len(matrices_of(again)) == 2


@pytest.mark.parametrize(
    ("rank", "ages", "error", "told"),
    [
        (-1, (), ValueError, "rank must be an integer >= 0, got -1"),
        (True, (), ValueError, "rank must be an integer >= 0, got True"),
        (1.5, (), ValueError, "got 1.5"),
        ({"fc*": 1}, (), ValueError, "no analog matrix matches 'fc\\*'; there are '0', '3'"),
        ({"0": None}, (), ValueError, "no matrix is left to have an adapter"),
        (0, ("1y", "1h"), ValueError, "each later than the one before"),
        (0, (0,), ValueError, "ages must be above 0"),
        (0, "1h", TypeError, "ages must be a sequence"),
    ],
)
def test_bad_input(rank: Any, ages: Any, error: type[Exception], told: str) -> None:
    analog = twin()
    with pytest.raises(error, match=told):
        analogsim.add_adapters(analog, rank, ages=ages)
    assert adapters_of(analog).matrices == ()


def test_a_second_time_and_none_at_all() -> None:
    analog = twin()
    with pytest.raises(ValueError, match="the twin has no adapters"):
        analogsim.adapter_parameters(analog)
    analogsim.add_adapters(analog)
    with pytest.raises(ValueError, match="layer '0' has an adapter already"):
        analogsim.add_adapters(analog)
    with pytest.raises(ValueError, match="no analog layer"):
        analogsim.add_adapters(nn.Linear(4, 3))
