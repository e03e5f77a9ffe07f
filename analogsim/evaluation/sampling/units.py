"""What a chip may be asked of data: single samples, or batches where these cannot be taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from analogsim.errors import InvalidValueError
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.sampling.picking import Batch, is_divisible, joined, picked, some_of
from analogsim.evaluation.sampling.unit_scores import BATCH, MARGIN, SCORE, WEIGHT
from analogsim.utils.batches import Data, Inputs, samples_in

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Units:
    """All of them, in the order of the data; ``(units,)`` each.

    Args:
        batch: in which batch it lies.
        place: where in that; -1 for the whole batch.
        size: how many samples it has.
        weight: its share in the score; together 1.
        clean: what the network without errors scores on it.
        margin: by how much its answer is right there; None where answers are no class scores.
    """

    batch: Places
    place: Places
    size: Places
    weight: FloatArray
    clean: FloatArray
    margin: FloatArray | None

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def samples(self) -> int:
        """How many there are in the data."""
        return int(self.size.sum())

    @classmethod
    def of(cls, data: Data, rows: FloatArray) -> Units:
        """Those of data.

        Args:
            data: the batches.
            rows: what the network without errors scored on them, see `UnitScores`.

        Raises:
            ValueError: the batches are not those that were scored.
        """
        parts: list[FloatArray] = []
        starts = np.searchsorted(rows[:, BATCH], np.arange(int(rows[-1, BATCH]) + 2))
        number = -1
        for number, (inputs, target) in enumerate(data):
            size = samples_in(inputs, target)
            own = rows[starts[number] : starts[number + 1]] if number + 1 < len(starts) else rows[:0]
            parts.append(_units_of(number, size, own, len(own) == size > 1 and is_divisible((inputs, target), size)))
        if number + 2 != len(starts):
            raise InvalidValueError(
                "evaluate: the loader gave another number of batches than before; samples_per_chip needs data that are "
                "the same in every pass"
            )
        batch, place, size, weight, clean, margin = np.concatenate(parts, axis=1)
        total = weight.sum()
        if not total > 0:
            raise InvalidValueError("evaluate: no sample to score: none of the targets counts")
        batch, place, size = (part.astype(np.int64) for part in (batch, place, size))
        return cls(batch, place, size, weight / total, clean, None if np.isnan(margin).any() else margin)

    def scores_of(self, index: Places, rows: FloatArray) -> FloatArray:
        """What some units scored, ``(len(index),)``.

        Args:
            index: which were asked, ascending.
            rows: what was noted of their samples, see `UnitScores`.
        """
        if len(rows) == len(index):
            return rows[:, SCORE]
        found: list[float] = []
        for number in range(int(rows[-1, BATCH]) + 1):
            own = rows[rows[:, BATCH] == number]
            if self.place[index[len(found)]] >= 0:
                found += own[:, SCORE].tolist()
            else:
                found.append(_mean_of(own))
        return np.array(found)


def _mean_of(rows: FloatArray) -> float:
    weight = float(rows[:, WEIGHT].sum())
    return float((rows[:, WEIGHT] * rows[:, SCORE]).sum()) / weight if weight else 0.0


def _units_of(number: int, size: int, rows: FloatArray, apart: bool) -> FloatArray:
    """The units of one batch, ``(6, units)``."""
    if apart:
        same = (np.full(size, number), np.arange(size), np.ones(size))
        return np.stack((*same, rows[:, WEIGHT], rows[:, SCORE], rows[:, MARGIN]))
    margin = rows[0, MARGIN] if len(rows) == 1 else np.nan
    return np.array([[number], [-1], [size], [rows[:, WEIGHT].sum()], [_mean_of(rows)], [margin]])


class Reader:
    """Units read from data, as batches.

    Args:
        data: where they lie.
        units: all of them.
        most: samples in a batch that is put together of several; None: as many as the largest one has.
    """

    def __init__(self, data: Data, units: Units, most: int | None = None) -> None:
        self.device = data.device
        self._data = data
        self._units = units
        counts = np.bincount(units.batch, units.size)
        self._most = int(counts.max()) if most is None else most
        self._held: dict[int, tuple[Places, Batch]] = {}

    def hold(self, index: Places) -> None:
        """Read units, of which those of the next calls are some; nothing where the data are in memory anyway."""
        if not self._data.is_kept:
            wanted = self._by_batch(index)
            found = some_of(self._data, {number: _asked(places) for number, places in wanted.items()})
            self._held = {number: (wanted[number], batch) for number, batch in found}

    def batches(self, index: Places) -> Iterator[Batch]:
        """The batches that hold these units, in order, and no others.

        Args:
            index: units, ascending.
        """
        waiting: list[Batch] = []
        sizes: list[int] = []
        for batch, size, single in self._pieces(index):
            full = sum(sizes) + size > self._most
            if waiting and (full or not single or joined([waiting[-1], batch], [sizes[-1], size]) is None):
                yield _together(waiting, sizes)
                waiting, sizes = [], []
            if not single:
                yield batch
                continue
            waiting.append(batch)
            sizes.append(size)
        if waiting:
            yield _together(waiting, sizes)

    def _by_batch(self, index: Places) -> dict[int, Places]:
        """The places of units in each batch."""
        if not len(index):
            return {}
        numbers, starts = np.unique(self._units.batch[index], return_index=True)
        parts = np.split(self._units.place[index], starts[1:])
        return dict(zip(numbers.tolist(), parts, strict=True))

    def _pieces(self, index: Places) -> Iterator[tuple[Batch, int, bool]]:
        """Parts of each batch with how many samples they have, and whether these are single ones."""
        wanted = self._by_batch(index)
        if not self._held:
            found = some_of(self._data, {number: _asked(places) for number, places in wanted.items()})
            for number, batch in found:
                yield batch, samples_in(*batch), wanted[number][0] >= 0
            return
        for number, places in wanted.items():
            held, batch = self._held[number]
            if places[0] < 0:
                yield batch, samples_in(*batch), False
            else:
                within = torch.from_numpy(np.searchsorted(held, places))
                yield picked(batch, within, len(held)), len(places), True


class Asked:
    """Some units as data: what `score_networks` goes through.

    Args:
        reader: reads them.
        index: which ones, ascending.
    """

    def __init__(self, reader: Reader, index: Places) -> None:
        self.device = reader.device
        self._reader = reader
        self._index = index

    def __iter__(self) -> Iterator[tuple[Inputs, Any]]:
        return self._reader.batches(self._index)


def _asked(places: Places) -> list[int] | None:
    """Which samples of a batch; None for all."""
    return None if places[0] < 0 else places.tolist()


def _together(batches: list[Batch], sizes: list[int]) -> Batch:
    found = joined(batches, sizes)
    return batches[0] if found is None else found  # each was looked at beside the one before it
