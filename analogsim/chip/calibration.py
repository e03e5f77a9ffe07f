"""Ranges of converters, from data that streams through the network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from analogsim.chip.ranges import ranges_as_they_are
from analogsim.errors import InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import drawn_in_eval, exactly, matrices_of
from analogsim.layers.state import Uses
from analogsim.utils.batches import Inputs, call, inputs_of, moved
from analogsim.utils.checks import check_flag
from analogsim.utils.tensors import holds_nonfinite


class Magnitudes:
    """The distribution of magnitudes of a stream of values: any percentile, to 0.8 %, in memory that does not grow.

    Values are counted by the leading 16 bits of their magnitude in float32: the exponent and 7 bits behind it. Between
    the smallest and the largest that was met, since a network may have thousands of such distributions.
    """

    def __init__(self) -> None:
        self._zeros = 0
        self._first = 0
        self._counts = torch.zeros(0, dtype=torch.int64)
        self.largest = 0.0
        self.lowest = 0.0

    def add(self, values: Tensor) -> None:
        """Count values of any shape.

        Raises:
            ValueError: one of them is NaN or infinite.
        """
        values = values.detach().float().flatten()
        if not values.isfinite().all():
            raise InvalidValueError("values are NaN or infinite")
        if not values.numel():
            return
        bins = values.abs().view(torch.int32) >> 16
        self.largest = max(self.largest, float(values.abs().max()))
        self.lowest = min(self.lowest, float(values.min()))
        met = bins[bins > 0]
        self._zeros += len(bins) - len(met)
        if not len(met):
            return
        first, last = int(met.min()), int(met.max()) + 1
        before = len(self._counts)
        start = min(first, self._first) if before else first
        end = max(last, self._first + before)
        counts = torch.bincount(met - start, minlength=end - start).cpu()
        counts[self._first - start :][:before] += self._counts
        self._first, self._counts = start, counts

    def percentile(self, percent: float) -> float:
        """A magnitude that ``percent`` of the values do not exceed, at most 0.8 % above the smallest such one."""
        passed = self._counts.cumsum(0) + self._zeros
        total = int(passed[-1]) if len(passed) else self._zeros
        rank = max(1, -(-total * int(percent * 1000) // 100_000))
        if rank <= self._zeros:
            return 0.0
        place = self._first + int((passed < rank).sum())
        upper = (torch.tensor(place + 1, dtype=torch.int32) << 16).view(torch.float32)
        return min(float(upper), self.largest)


Observe = Callable[[AnalogMatrix, str, Tensor, int, int | None], None]


@contextmanager
def _observed(layers: list[AnalogMatrix], observe: Observe) -> Iterator[None]:
    """Let layers show what reaches their converters."""
    for layer in layers:
        layer.analog.observe = partial(observe, layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.analog.observe = None


def calibrate(
    analog: nn.Module, loader: Iterable[Any], *, percentile: float = 99.99, keep_learned: bool = False
) -> None:
    """Set the ranges of the converters that a crossbar leaves to calibration.

    Data streams through the network in eval mode: through the chip if one is programmed, at its present age, else
    through the clean weights. An input range is the percentile of the magnitudes of the inputs, an output bound that of
    what bit lines carry (one more pass, with the input ranges set): of each block of rows its own, and of each slice of
    it, unless the crossbar says ``ranges_per="layer"``. A block or slice that gets nothing but 0 takes the largest of
    the others; a table has one bound for each slice. Ranges stay until the next calibration. Where no converter asks
    for it, nothing happens.

    Args:
        analog: the twin.
        loader: yields inputs (a tensor, a tuple of arguments, or a mapping of keyword arguments), or tuples that begin
            with them; labels in a mapping are left out.
        percentile: of the magnitudes that must fit, in (0, 100]; exact to 0.8 %.
        keep_learned: leave ranges that are learned, and have a value, as they are.

    Raises:
        ValueError: an empty loader, an impossible percentile, inputs that are NaN or infinite, a layer whose inputs are
            all zero or not finite, or negative inputs of an unsigned converter. Ranges are as before then.
        BypassedError: no analog layer had a part in the answers, so that nothing reached a converter.
    """
    if isinstance(percentile, bool) or not isinstance(percentile, int | float) or not 0 < percentile <= 100:
        raise InvalidValueError(f"calibrate: percentile must be in (0, 100], got {percentile!r}")
    check_flag(keep_learned, "calibrate: keep_learned")
    layers = matrices_of(analog)
    restore = ranges_as_they_are(analog)
    try:
        _forget(layers, keep_learned)
        open_inputs = [
            layer for layer in layers if layer.analog.crossbar.needs_range and layer.analog.input_range is None
        ]
        open_outputs = [layer for layer in layers if layer.analog.crossbar.needs_bound]
        for what, wanted in (("input", open_inputs), ("output", open_outputs)):
            if wanted:
                _set(analog, wanted, what, loader, percentile)
    except BaseException:
        restore()
        raise


def _forget(layers: list[AnalogMatrix], keep_learned: bool) -> None:
    """Take ranges away: what reaches the converters must not go through old ones."""
    for layer in layers:
        state = layer.analog
        state.output_bound = None
        if not (keep_learned and state.crossbar.learns):
            state.input_range = None


def _set(analog: nn.Module, layers: list[AnalogMatrix], what: str, loader: Iterable[Any], percentile: float) -> None:
    kind = "input_range" if what == "input" else "output_bound"
    seen: dict[AnalogMatrix, dict[tuple[int, ...], Magnitudes]] = {}
    for layer in layers:
        seen[layer] = {place: Magnitudes() for place in itertools.product(*map(range, layer.analog.range_shape(kind)))}

    batch: Any = None

    def observe(layer: AnalogMatrix, shown: str, values: Tensor, place: int, block: int | None) -> None:
        if shown != what or layer not in seen:
            return
        for index, magnitudes in seen[layer].items():
            # Nothing for a range of all, (block,) for an input range, (slice, block) for an output bound.
            if (len(index) < 2 or index[0] == place) and (not index or block is None or index[-1] == block):
                try:
                    magnitudes.add(values)
                except ValueError as error:
                    already = "; those of the network hold some already" if holds_nonfinite(batch, masks=True) else ""
                    raise InvalidValueError(
                        f"calibrate: layer {layer.analog.name!r}: its {what} {error}{already}"
                    ) from None

    uses = Uses([matrix.analog for matrix in matrices_of(analog)])
    on_chip_or_clean = drawn_in_eval(analog, lambda state: 0.0 if state.chip is None else None)
    with _observed(matrices_of(analog), observe), on_chip_or_clean, torch.no_grad():
        for batch in inputs_of(loader):
            call(analog, moved(batch, layers[0].still()[0].device))
            uses.check("calibrate")
    for layer, distributions in seen.items():
        setattr(layer.analog, kind, _range_of(layer, kind, what, distributions, percentile))


def _range_of(
    layer: AnalogMatrix, kind: str, what: str, distributions: dict[tuple[int, ...], Magnitudes], percentile: float
) -> Tensor:
    """The range of a layer, as `AnalogState.range_shape` says, of what its converters were shown."""
    state, place = layer.analog, layer.still()[0].device
    values = {index: magnitudes.percentile(percentile) for index, magnitudes in distributions.items()}
    largest = max(values.values())
    if largest == 0:
        raise InvalidValueError(
            f"calibrate: layer {state.name!r} got no {what} other than 0; give it data that reach it"
        )
    found = torch.tensor([value or largest for value in values.values()], device=place)
    found = found.view(state.range_shape(kind))
    if what == "output":
        return found
    lowest = min(magnitudes.lowest for magnitudes in distributions.values())
    if state.crossbar.dac == "unsigned" and lowest < 0:
        raise InvalidValueError(
            f"calibrate: layer {state.name!r} gets inputs down to {lowest:g}, and its converter is unsigned; give that "
            'layer a crossbar with dac="symmetric"'
        )
    if state.layout.bias_rows:
        found = with_bias(found, layer)
    return found.requires_grad_(state.crossbar.learns)


# Of what converters are given: 3 to 4 % in the last layer of an MLP cost nothing that can be seen, 8 % in a GRU did.
_MUCH = 0.05


def has_fixed_bound(layer: AnalogMatrix) -> bool:
    """Whether a matrix's output converters end at a number that no data have set."""
    return isinstance(layer.analog.crossbar.output_bound, int | float)


def find_saturated(analog: nn.Module, inputs: Inputs) -> dict[str, float]:
    """How much of what output converters are given lies beyond their bounds, and comes out as the bound.

    Without any error of a chip. Where bounds are fixed numbers: those that data set were chosen, by a percentile or by
    the error of outputs, and may cut off on purpose.

    Args:
        analog: the twin; its modes and random states are as before afterwards.
        inputs: one batch, where the network is.

    Returns:
        For each matrix whose output converters have such a bound, and which had a part, the share in [0, 1].
    """
    layers = [layer for layer in matrices_of(analog) if has_fixed_bound(layer)]
    seen = {layer: [0, 0] for layer in layers}

    def observe(layer: AnalogMatrix, shown: str, values: Tensor, place: int, block: int | None) -> None:
        if shown != "output":
            return
        seen[layer][0] += int((values.abs() > cast(float, layer.analog.crossbar.output_bound)).sum())
        seen[layer][1] += values.numel()

    if not layers:
        return {}
    place = layers[0].torch_device
    with (
        _observed(layers, observe),
        exactly(analog, converters=True, adapters=True),
        torch.random.fork_rng([place.index or 0] if place.type == "cuda" else []),
        torch.no_grad(),
    ):
        call(analog, inputs)
    return {layer.analog.title: beyond / total for layer, (beyond, total) in seen.items() if total}


def saturation_told(analog: nn.Module, shares: Mapping[str, float]) -> str:
    """What is to be said of shares that `find_saturated` gave, and what to do; empty where hardly any are beyond.

    Args:
        analog: the twin.
        shares: of its matrices.
    """
    much = sorted((name for name, share in shares.items() if share > _MUCH), key=lambda name: -shares[name])
    if not much:
        return ""
    worst = ", ".join(f"{name!r} {shares[name]:.0%}" for name in much[:3])
    more = f" and {len(much) - 3} more" if len(much) > 3 else ""
    bounds = {matrix.analog.title: matrix.analog.crossbar.output_bound for matrix in matrices_of(analog)}
    return (
        f"output converters saturate: of what reaches them in layers {worst}{more} lies beyond "
        f"output_bound={bounds[much[0]]:g}; with output_bound='calibrated' analogsim.calibrate sets it from data"
    )


def with_bias(found: Tensor, layer: AnalogMatrix) -> Tensor:
    """Input ranges into which the input 1 of the bias rows fits, where they lie. Works in place on those of blocks."""
    layout = layer.analog.layout
    if not found.ndim:
        return found.clamp(min=1.0)
    inputs = layout.rows[-1][1] - layout.bias_rows
    for block, (start, end) in enumerate(layout.rows):
        if start >= inputs:
            found[block] = 1.0
        elif end > inputs:
            found[block] = found[block].clamp(min=1.0)
    return found
