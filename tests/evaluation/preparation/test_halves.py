import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from analogsim.evaluation.preparation.halves import halves_of


def test_a_batch_is_cut_sample_by_sample():
    x = torch.arange(7)
    (one,), (other,) = halves_of(x, 100)
    assert (one.tolist(), other.tolist()) == ([0, 2, 4, 6], [1, 3, 5])
    (one,), (other,) = halves_of([(x, torch.zeros(7))], 100)  # labels are left out
    assert (one.tolist(), other.tolist()) == ([0, 2, 4, 6], [1, 3, 5])


def test_arguments_are_cut_together():
    first, second = torch.arange(4), torch.arange(4) + 10
    for batch in ({"a": first, "b": second, "flag": True}, [((first, second), 0)]):
        (one,), (other,) = halves_of(batch, 100)
        values = (list(part.values()) if isinstance(part, dict) else list(part) for part in (one, other))
        kept, left = ([each.tolist() for each in part if isinstance(each, torch.Tensor)] for part in values)
        assert (kept, left) == ([[0, 2], [10, 12]], [[1, 3], [11, 13]])
        assert not isinstance(one, dict) or one["flag"] is True


def test_batches_of_one_sample_are_taken_in_turn():
    batches = [torch.tensor([k]) for k in range(5)]
    one, other = halves_of(batches, 100)
    assert ([int(each) for each in one], [int(each) for each in other]) == ([0, 2, 4], [1, 3])


@pytest.mark.parametrize("batch", [torch.zeros(1, 3), pack_sequence([torch.zeros(3, 2), torch.zeros(2, 2)])])
def test_what_cannot_be_cut_is_both(batch):
    one, other = halves_of([batch], 100)
    assert one is other
    assert len(one) == 1


def test_no_more_than_asked():
    one, other = halves_of([torch.zeros(6), torch.ones(6), torch.ones(6)], 8)
    assert [len(each) for each in one + other] == [3, 1, 3, 1]
    assert sum(float(each.sum()) for each in one + other) == 2


def test_nothing():
    with pytest.raises(ValueError, match="the loader is empty"):
        halves_of([], 10)


@pytest.mark.parametrize("sizes", [(32, 1), (1, 32), (8, 8, 1), (1, 1, 6, 1)])
def test_halves_are_as_large_as_each_other_whatever_the_batches_are(sizes):
    one, other = halves_of([torch.zeros(size, 2) for size in sizes], 100)
    held = [sum(map(len, half)) for half in (one, other)]
    assert sum(held) == sum(sizes)
    assert abs(held[0] - held[1]) <= 1


def test_the_most_that_is_taken_may_leave_one_of_a_batch():
    one, other = halves_of([torch.zeros(64), torch.ones(64)], 65)
    assert [sum(map(len, half)) for half in (one, other)] == [33, 32]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(0, 3), "batch 1 of the inputs holds no samples"),
        (torch.full((2, 3), float("nan")), "batch 1 of the inputs holds NaN"),
    ],
)
def test_batches_that_are_refused(batch, message):
    with pytest.raises(ValueError, match=f"prepare: {message}"):
        halves_of([torch.zeros(2, 3), batch], 100)
