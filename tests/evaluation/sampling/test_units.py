from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from analogsim.evaluation.metrics import as_metric
from analogsim.evaluation.sampling.unit_scores import noting
from analogsim.evaluation.sampling.units import Asked, Reader, Units
from analogsim.evaluation.scoring import score_networks
from analogsim.utils import batches as batches_module
from analogsim.utils.batches import Data, samples_in

CPU = torch.device("cpu")


def first(inputs: Any, ask: Any) -> Any:
    """A network that answers with its inputs."""
    return [inputs.data[: len(inputs.batch_sizes) + 1] if hasattr(inputs, "batch_sizes") else inputs]


def made(loader: Any, metric: Any = "accuracy") -> tuple[Data, Units]:
    data = Data(loader, CPU)
    scores = score_networks(first, data, noting(as_metric(metric), whole=True))
    return data, Units.of(data, scores.details[0])


def loader(*sizes: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, 3, generator=generator), torch.randint(3, (size,), generator=generator)) for size in sizes
    ]


def test_samples_are_units() -> None:
    _, units = made(loader(4, 1, 3))
    assert len(units) == units.samples == 8
    assert units.batch.tolist() == [0] * 4 + [1] + [2] * 3
    assert units.place.tolist() == [0, 1, 2, 3, -1, 0, 1, 2]
    np.testing.assert_allclose(units.weight, 1 / 8)
    assert units.margin is not None
    np.testing.assert_array_equal(units.clean, units.margin > 0)


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_asked_is_put_together(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(batches_module, "_KEEP_BYTES", 8)
    pairs = loader(4, 4, 4)
    data, units = made(pairs)
    x, y = (torch.cat(part) for part in zip(*pairs, strict=True))
    reader = Reader(data, units)
    union = np.array([0, 3, 5, 6, 10, 11])
    for hold in (False, True):
        if hold:
            reader.hold(union)
        for index in (union, union[[0, 3, 4]], union[:1]):
            found = list(Asked(reader, index))
            assert [samples_in(*batch) for batch in found] == ([4, 2] if len(index) == 6 else [len(index)])
            assert torch.equal(torch.cat([inputs for inputs, _ in found]), x[index])
            assert torch.equal(torch.cat([target for _, target in found]), y[index])
            rows = score_networks(first, Asked(reader, index), noting(as_metric("accuracy"), whole=False)).details[0]
            np.testing.assert_array_equal(units.scores_of(index, rows), units.clean[index])


def test_batches_that_do_not_fit_together_stay_apart() -> None:
    pairs = [(torch.randn(2, 3, size), torch.randint(3, (2, size))) for size in (4, 4, 5)]
    data, units = made(pairs)
    found = list(Reader(data, units, most=9).batches(np.array([0, 2, 4])))
    assert [tuple(inputs.shape) for inputs, _ in found] == [(2, 3, 4), (1, 3, 5)]


def packed_target(output: Any, target: Any) -> Any:
    return target.double()


def test_what_cannot_be_cut_is_one_unit() -> None:
    packed = pack_sequence([torch.zeros(3, 2), torch.zeros(2, 2)])
    data, units = made([(packed, torch.tensor([1.0, 3.0])), *loader(3)], packed_target)
    assert units.place.tolist() == [-1, 0, 1, 2]
    assert units.size.tolist() == [2, 1, 1, 1]
    np.testing.assert_allclose(units.weight, np.array([2, 1, 1, 1]) / 5)
    assert units.clean[0] == 2
    index = np.array([0, 2])
    asked = Asked(Reader(data, units), index)
    assert [samples_in(*batch) for batch in asked] == [2, 1]
    rows = score_networks(first, asked, noting(as_metric(packed_target), whole=False)).details[0]
    np.testing.assert_array_equal(units.scores_of(index, rows), units.clean[index])


def batch_mean(output: Any, target: Any) -> Any:
    return output.mean()


def test_a_score_of_batches_has_batches_for_units() -> None:
    data, units = made(loader(4, 2), batch_mean)
    assert units.place.tolist() == [-1, -1]
    np.testing.assert_allclose(units.weight, [4 / 6, 2 / 6])
    rows = score_networks(first, Asked(Reader(data, units), np.array([1])), noting(as_metric(batch_mean), whole=False))
    np.testing.assert_array_equal(units.scores_of(np.array([1]), rows.details[0]), units.clean[1:])


def test_data_that_change_between_two_passes() -> None:
    class Growing:
        def __init__(self) -> None:
            self.passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            return iter(loader(*[2] * (self.passes + 1)))

    growing = Growing()
    data = Data(growing, CPU)
    rows = score_networks(first, data, noting(as_metric("accuracy"), whole=True)).details[0]
    for other in (loader(2, 2, 2), loader(2)):
        with pytest.raises(ValueError, match="another number of batches than before"):
            Units.of(Data(other, CPU), rows)
