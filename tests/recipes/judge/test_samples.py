import itertools

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from analogsim.recipes.judge.samples import Samples, read, read_inputs, thinned


def pairs(count: int = 40, size: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = torch.arange(count).float()[:, None]
    return list(zip(x.split(size), torch.arange(count).split(size), strict=True))


def numbers(samples: Samples) -> list[int]:
    return sorted(int(value) for _, target in samples for value in target)


class TestTake:
    def test_inputs_stay_with_their_targets_and_it_is_the_same_each_time(self):
        samples = Samples(pairs())
        some = samples.take(13)
        assert len(some) == 13
        assert all(torch.equal(inputs[:, 0].long(), target) for inputs, target in some)
        assert numbers(some) == numbers(samples.take(13))

    def test_every_batch_has_its_share(self):
        """Data may be in the order of their classes."""
        assert {number // 8 for number in numbers(Samples(pairs()).take(10))} == set(range(5))

    def test_more_than_there_are_is_all(self):
        assert numbers(Samples(pairs()).take(1000)) == list(range(40))

    def test_tuples_and_mappings_of_inputs(self):
        x, y = torch.arange(6.0)[:, None], torch.arange(6)
        for inputs in ((x, 2 * x), {"a": x, "b": 2 * x, "scale": 3.0}):
            ((taken, target),) = Samples([(inputs, y)]).take(3)
            first, second = taken if isinstance(taken, tuple) else (taken["a"], taken["b"])
            assert torch.equal(first[:, 0].long(), target)
            assert torch.equal(second, 2 * first)

    def test_what_cannot_be_cut_is_taken_whole(self):
        whole = [(torch.zeros(5, 3), torch.arange(3)), (torch.zeros(5, 3), torch.arange(3, 6))]
        assert len(Samples(whole).take(1)) == 3

    def test_pieces(self):
        assert len(Samples(pairs(40, 40)).take(40, pieces=10).batches) == 10


def test_halves_have_no_sample_in_common():
    one, other = Samples(pairs()).halves()
    assert sorted(numbers(one) + numbers(other)) == list(range(40))
    with pytest.raises(ValueError, match="give validation="):
        Samples([(torch.zeros(1, 3), torch.zeros(1))]).halves()


def test_exchanged_targets_belong_to_others():
    mixed = Samples(pairs()).exchanged()
    assert mixed is not None
    assert numbers(mixed) == list(range(40))
    assert sum(int((inputs[:, 0].long() == target).sum()) for inputs, target in mixed) < 6


class TestThinned:
    def test_a_loader_of_batches(self):
        data = TensorDataset(torch.arange(100.0)[:, None], torch.arange(100))
        samples, hurried = read(DataLoader(data, batch_size=8), 10, 60)
        assert (len(samples), hurried) == (10, False)
        assert max(numbers(samples)) > 50

    def test_a_loader_that_takes_whole_batches_out_of_the_data(self):
        data = TensorDataset(torch.arange(100.0)[:, None], torch.arange(100))
        loader = DataLoader(data, sampler=BatchSampler(SequentialSampler(data), 8, False), batch_size=None)
        samples, _ = read(loader, 10, 60)
        assert len(samples) == 10
        assert max(numbers(samples)) > 50

    def test_the_rest_is_never_read(self):
        class Counted(TensorDataset):
            asked = 0

            def __getitem__(self, index):
                Counted.asked += 1
                return super().__getitem__(index)

        read(DataLoader(Counted(torch.zeros(1000, 1), torch.zeros(1000))), 5, 60)
        assert Counted.asked == 5

    def test_others_are_as_they_are(self):
        batches = pairs()
        assert thinned(batches, 3) is batches


def test_reading_stops_in_time():
    endless = ((torch.zeros(2, 1), torch.zeros(2)) for _ in itertools.count())
    samples, hurried = read(endless, 10, 0.05)
    assert hurried
    assert len(samples) > 0


def test_an_empty_loader():
    with pytest.raises(ValueError, match="judge: a loader is empty"):
        read([], 3, 1.0)


def test_inputs_alone():
    assert sum(len(inputs) for inputs in read_inputs([torch.zeros(4, 2)] * 9, 10, 60)) == 12


def detections(count: int = 12, size: int = 4):
    """Batches as detectors have them: pictures in a list, a mapping for each."""
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        boxes = [{"boxes": torch.full((n % 3, 4), float(n)), "labels": torch.full((n % 3,), n)} for n in numbers]
        yield ([torch.full((3, 5 + n, 4), float(n)) for n in numbers],), boxes


class TestTargetsOfAnyStructure:
    """What stands in a target goes with its sample, whatever it is."""

    def test_mappings_in_a_list(self):
        samples = Samples(detections())
        assert len(samples) == 12
        for part in (samples.take(7), *samples.halves()):
            for (pictures,), targets in part:
                assert [len(target["boxes"]) for target in targets] == [int(each[0, 0, 0]) % 3 for each in pictures]
        assert len(samples.take(7)) == 7

    def test_three_pictures_of_three_channels_are_three(self):
        (one,) = Samples(detections(3, 3)).take(2).batches
        assert len(one[0][0]) == len(one[1]) == 2

    @pytest.mark.parametrize("wrap", [lambda y: {"a": y, "b": -y}, lambda y: (y, -y), lambda y: [y, -y, y]])
    def test_parts_of_all_samples(self, wrap):
        samples = Samples((x, wrap(y)) for x, y in pairs(40, 3))
        taken = samples.take(13)
        assert len(taken) == 13
        for x, target in taken:
            parts = list(target.values()) if isinstance(target, dict) else target
            assert torch.equal(parts[0], x[:, 0].long())
            assert torch.equal(parts[1], -parts[0])

    def test_texts(self):
        samples = Samples((x, [str(int(n)) for n in y]) for x, y in pairs())
        for x, texts in samples.take(9):
            assert texts == [str(int(n)) for n in x[:, 0]]

    def test_they_are_exchanged_too(self):
        mixed = Samples(detections()).exchanged()
        assert mixed is not None
        for (pictures,), targets in mixed:
            assert len(pictures) == len(targets)
            assert all(
                len(t["labels"]) == 0 or int(t["labels"][0]) != int(p[0, 0, 0])
                for p, t in zip(pictures, targets, strict=True)
            )
        whole = Samples([(torch.zeros(4, 2), {"lengths": torch.tensor(3), "y": torch.zeros(4)})])
        assert whole.exchanged() is None

    def test_a_batch_without_samples_is_refused(self):
        with pytest.raises(ValueError, match="each batch needs samples"):
            Samples([(torch.zeros(0, 2), torch.zeros(0))])
