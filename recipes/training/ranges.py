"""Ranges of converters in the recipes: set on training data, and set again as the weights change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.batch_norm import gather_statistics, has_batch_norm, own_statistics
from analogsim.chip.ranges import Ranges, get_ranges, set_ranges
from analogsim.crossbar import Crossbar
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.loaders import Loader, take
from analogsim.recipes.training.processes import Group
from analogsim.utils.batches import inputs_of, moved


def needs_ranges(array: Crossbar) -> bool:
    """Whether a crossbar leaves a range to calibration or to training."""
    return array.needs_range or array.needs_bound


def calibration_batches(config: Config, data: Splits) -> Loader:
    """The training samples on which ranges are set, drawn by the seed, in batches of about equal size."""
    drawn = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(config.seed))
    index = drawn[: config.calibration.samples]
    batches = -(-len(index) // config.evaluation.batch_size)
    return data.batches(take(data.train, index), -(-len(index) // batches))


def calibrate(
    twin: nn.Module, array: Crossbar, config: Config, batches: Loader, *, learned: Ranges | None = None
) -> None:
    """Set the ranges of a twin by what goes through its clean weights.

    Args:
        twin: the twin.
        array: that it is on.
        config: says which percentile fits.
        batches: training data.
        learned: ranges of a twin of the same network; the learned input ranges of them are taken as they are.
    """
    keep = bool(learned) and array.learns
    if learned and keep:
        set_ranges(twin, {name: {"input_range": given["input_range"]} for name, given in learned.items()})
    analogsim.calibrate(twin, batches, percentile=config.calibration.percentile, keep_learned=keep)


@contextmanager
def _statistics_of_data(twin: nn.Module, batches: Loader) -> Iterator[None]:
    """Let batch norm of a twin have statistics of its own, those that data have on the clean weights, for a block.

    Before training the network's own statistics are those of no data: with them what comes out of one layer after
    another gets smaller and smaller, and ranges that are set on it are those of dead layers, once training normalises.
    """
    if not has_batch_norm(twin):
        yield
        return
    digital = analogsim.to_digital(twin).eval()
    place = next(digital.parameters()).device
    with own_statistics(digital), own_statistics(twin):
        gather_statistics(digital, (moved(batch, place) for batch in inputs_of(batches, "calibrate")))
        found = dict(digital.named_buffers())
        with torch.no_grad():
            for name, buffer in twin.named_buffers():
                if name in found:
                    buffer.copy_(found[name])
        yield


class TwinRanges:
    """The ranges of a training's twins, the same ones in all processes.

    Args:
        config: says which percentile fits.
        array: that the twins are on.
        twins: of one network: the one that is judged first, the one that trains last.
        batches: training data.
        group: the processes that train together.

    Attributes:
        learned: those that the optimizer moves, once they have begun.
    """

    def __init__(
        self, config: Config, array: Crossbar, twins: Sequence[nn.Module], batches: Loader, group: Group
    ) -> None:
        self.learned: list[Tensor] = []
        self._config = config
        self._array = array
        self._twins = twins
        self._batches = batches
        self._group = group

    def begin(self, stored: Sequence[Ranges], *, learn: bool) -> None:
        """Set them as they were left, or for the first time.

        Args:
            stored: of each twin, as `now` gave them; nothing for the first time.
            learn: whether training moves those that the crossbar learns.
        """
        if any(stored):
            for twin, ranges in zip(self._twins, stored, strict=True):
                set_ranges(twin, ranges)
        else:
            with ExitStack() as stack:
                for twin in self._twins:
                    stack.enter_context(_statistics_of_data(twin, self._batches))
                self.set_again()
        if learn and self._array.learns:
            self.learned = analogsim.range_parameters(self._twins[-1])

    def set_again(self) -> None:
        """Set those that come from data; learned ones stay once they are."""
        if not needs_ranges(self._array):
            return
        learned = get_ranges(self._twins[-1]) if self.learned else None

        def calibrated() -> list[Ranges]:
            for twin in self._twins:
                calibrate(twin, self._array, self._config, self._batches, learned=learned)
            return self.now()

        for twin, ranges in zip(self._twins, self._group.first(calibrated), strict=True):
            set_ranges(twin, ranges)

    def now(self) -> list[Ranges]:
        """Those of each twin."""
        return [get_ranges(twin) for twin in self._twins]
