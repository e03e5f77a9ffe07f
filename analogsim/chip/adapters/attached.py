"""Digital adapters put behind the matrices of a twin, listed for an optimizer, taken off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from analogsim.crossbar.adapter import Adapter
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import AnalogModule, matrices_of
from analogsim.utils.text import table
from analogsim.utils.times import label, seconds


@dataclass(frozen=True)
class MatrixAdapter:
    """What one adapter takes of the digital part.

    Args:
        name: of the matrix.
        outputs: how many it has.
        rank: of the digital product beside it; 0 for scales and offsets alone.
        numbers: that are stored.
        multiply_adds: for each vector that goes in, a position of a convolution or a step of a sequence.
    """

    name: str
    outputs: int
    rank: int
    numbers: int
    multiply_adds: int


@dataclass(frozen=True)
class Adapters:
    """The adapters of a twin, and what they take of the digital part. ``str()`` is a table.

    Args:
        matrices: those that have one.
        ages: for which vectors are kept, seconds; empty for one set at any age.
    """

    matrices: tuple[MatrixAdapter, ...]
    ages: tuple[float, ...] = ()

    @property
    def numbers(self) -> int:
        """How many numbers the digital part stores."""
        return sum(each.numbers for each in self.matrices)

    def __str__(self) -> str:
        rows = [
            (
                each.name or "(the model itself)",
                str(each.outputs),
                str(each.rank),
                f"{each.numbers:,}",
                f"{each.multiply_adds:,}",
            )
            for each in self.matrices
        ]
        ages = f", vectors for {', '.join(map(label, self.ages))}" if self.ages else ""
        head = ("matrix", "outputs", "rank", "numbers", "multiply-adds for each vector")
        return f"{table(head, rows)}\n{self.numbers:,} numbers stored{ages}"


def add_adapters(
    analog: nn.Module, rank: int | Mapping[str, int | None] = 0, *, ages: Sequence[float | str] = ()
) -> Adapters:
    """Put digital numbers behind every analog matrix, to be trained while the weights stay: nothing changes yet.

    Each output gets a scale and an offset, which chips have behind their converters anyway. With a rank, a digital
    product of two small matrices comes beside that of the crossbars, :math:`B (A x)`: for a linear map ``(out, in)``
    ``rank * (out + in)`` numbers and multiply-adds; for a convolution :math:`A` is one of ``rank`` channels and
    :math:`B` one of kernel 1.

    Adapters belong to the twin, as ranges of converters do, and not to the chip: they act on the fresh draws of
    training and on every chip, behind what `calibrate_outputs` has set on it. They are no Parameters of the network and
    in no state dict: `adapter_parameters` gives them to an optimizer, `save_adapters` and `save_chip` store them.
    `fine_tune` trains them.

    Args:
        analog: the twin.
        rank: of the product beside; 0: scales and offsets alone. Or a mapping of glob patterns on names of matrices to
            ranks, the first match wins, None for no adapter. No matrix gets more than its number of outputs or inputs.
            Tables that are looked up have scales and offsets alone: a product beside would move the entries that
            training has not met.
        ages: keep vectors for each of these ages of a chip (scales, offsets, one factor for each rank), interpolated
            over the logarithm of time; the two matrices are those of all ages. Default: one set for any age.

    Returns:
        What they take of the digital part.

    Raises:
        TypeError: ages are no sequence.
        ValueError: there are adapters already, a rank below 0, ages that do not rise or are not above 0, a pattern
            that matches nothing. The twin is as before then.

    Source: see `Adapter`.

    Example:
        >>> import torch, analogsim
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> analog = analogsim.convert(model, device="pcm")
        >>> analogsim.add_adapters(analog, rank=2).numbers
        128
    """
    matrices = matrices_of(analog)
    held = [matrix.analog.title for matrix in matrices if matrix.analog.adapter is not None]
    if held:
        raise InvalidValueError(
            f"add_adapters: layer {held[0]!r} has an adapter already; analogsim.remove_adapters(analog) takes all off"
        )
    times = _rising(ages)
    ranks = _ranks(rank, [matrix.analog.name for matrix in matrices])
    for matrix, wanted in zip(matrices, ranks, strict=True):
        if wanted is not None:
            weight = matrix.still()[0]
            most = 0 if _is_table(matrix) else min(len(weight), weight[0].numel())
            matrix.analog.adapter = Adapter.fresh(weight, min(wanted, most), times)
    return adapters_of(analog)


def _is_table(matrix: AnalogMatrix) -> bool:
    holder = matrix.holder
    return isinstance(holder, AnalogModule) and holder.stored


def _rising(ages: Sequence[float | str]) -> tuple[float, ...]:
    if isinstance(ages, str) or not isinstance(ages, Sequence):
        raise InvalidTypeError(f'add_adapters: ages must be a sequence such as ("1h", "1d", "1y"), got {ages!r}')
    times = tuple(seconds(age) for age in ages)
    if any(time <= 0 for time in times) or list(times) != sorted(set(times)):
        raise InvalidValueError(f"add_adapters: ages must be above 0, each later than the one before, got {ages!r}")
    return times


def _ranks(rank: int | Mapping[str, int | None], names: Sequence[str]) -> list[int | None]:
    """The rank of each matrix, None for no adapter."""
    patterns = dict(rank) if isinstance(rank, Mapping) else {"*": rank}
    for pattern, wanted in patterns.items():
        if isinstance(wanted, bool) or not (wanted is None or (isinstance(wanted, int) and wanted >= 0)):
            raise InvalidValueError(f"add_adapters: rank must be an integer >= 0, got {wanted!r}")
        if not any(fnmatchcase(name, pattern) for name in names):
            known = ", ".join(map(repr, names))
            raise InvalidValueError(f"add_adapters: no analog matrix matches {pattern!r}; there are {known}")
    found = [
        next((wanted for pattern, wanted in patterns.items() if fnmatchcase(name, pattern)), None) for name in names
    ]
    if all(wanted is None for wanted in found):
        raise InvalidValueError(f"add_adapters: no matrix is left to have an adapter, got rank={rank!r}")
    return found


def adapters_of(analog: nn.Module) -> Adapters:
    """The adapters of a twin, and what they take; of a twin without any, nothing.

    Args:
        analog: the twin.
    """
    rows: list[MatrixAdapter] = []
    ages: tuple[float, ...] = ()
    for matrix in matrices_of(analog):
        adapter = matrix.analog.adapter
        if adapter is None:
            continue
        ages = adapter.ages
        down, up = (0 if part is None else part.numel() for part in (adapter.down, adapter.up))
        outputs = adapter.scale.shape[1]
        # The inputs of each group meet `down`, which is one for all groups.
        macs = outputs + matrix.analog.slot.groups * down + up
        rows.append(MatrixAdapter(matrix.analog.name, outputs, adapter.rank, adapter.numbers, macs))
    return Adapters(tuple(rows), ages)


def adapter_parameters(analog: nn.Module) -> list[Tensor]:
    """What of adapters is trained, to hand to an optimizer.

    Where a chip answers, its weights get no gradient and a backward that comes to them warns: take
    ``model.requires_grad_(False)`` first, as `fine_tune` does meanwhile.

    Args:
        analog: the twin, with adapters.

    Raises:
        ValueError: it has none.
    """
    return [
        value for adapter in held_adapters(analog, "adapter_parameters").values() for value in adapter.tensors.values()
    ]


def held_adapters(analog: nn.Module, action: str) -> dict[str, Adapter]:
    """The adapters by names of matrices; ValueError where there are none."""
    states = [matrix.analog for matrix in matrices_of(analog)]
    found = {state.name: state.adapter for state in states if state.adapter is not None}
    if not found:
        raise InvalidValueError(f"{action}: the twin has no adapters; analogsim.add_adapters(analog) puts them on")
    return found


def remove_adapters(analog: nn.Module) -> None:
    """Take all adapters off. Nothing happens to a twin without any."""
    for matrix in matrices_of(analog):
        matrix.analog.adapter = None


def adapters_as_they_are(analog: nn.Module) -> Callable[[], None]:
    """A function that gives a twin back the adapters that it has now, with the numbers that they hold."""
    held = [(matrix.analog, matrix.analog.adapter) for matrix in matrices_of(analog)]
    adapters = [adapter for _, adapter in held if adapter is not None]
    seeds = [adapter.seed for adapter in adapters]
    tensors = [value for adapter in adapters for value in adapter.tensors.values()]
    before = [(value, value.detach().clone(), value.grad) for value in tensors]

    def restore() -> None:
        for state, adapter in held:
            state.adapter = adapter
        for adapter, seed in zip(adapters, seeds, strict=True):
            adapter.seed = seed
        with torch.no_grad():
            for value, numbers, grad in before:
                value.copy_(numbers)
                value.grad = grad

    return restore
