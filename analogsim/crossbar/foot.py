"""The foot of the bit lines: all that happens between a current and the number that goes into the digital sum.

Products and look-ups of every layer end here, so that this is the one place where an output converter is described. A
new kind of one is a field of `Crossbar` (with its check) and here: what differs from converter to converter is drawn in
`draw_converter_errors`; what an error does to a value stands in `Foot.read`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from analogsim.crossbar.converters import read_out, steps_of
from analogsim.crossbar.crossbar import Crossbar
from analogsim.noise.sources import Noise, Scale, is_silent

OfOutputs = Callable[[Tensor], Tensor]
"""Takes values ``(out, row blocks)`` to those of the converters that read, so that they broadcast to the outputs."""


class Observe(Protocol):
    """Is shown what reaches the converters, during calibration."""

    def __call__(self, kind: str, values: Tensor, place: int, block: int | None) -> None:
        """See what reaches some of them.

        Args:
            kind: ``"input"`` or ``"output"``.
            values: what they are to convert, in units of which a range of 1 is full scale; inputs as they are.
            place: of the slice, for outputs.
            block: of rows; None for all of them.
        """
        ...


def draw_converter_errors(crossbar: Crossbar, like: Tensor, noise: Noise, scale: Scale = 1.0) -> dict[str, Tensor]:
    """What differs from output converter to output converter, by name; drawn once for a chip.

    Args:
        crossbar: says by how much.
        like: one number for each converter, ``(slices, out, row blocks)``.
        noise: where the converters come from.
        scale: factor on how much.

    Returns:
        Tensors shaped like ``like``: ``"gain"``, relative to 1, and ``"offset"``, in the unit of the output bound; none
        where all converters are alike.
    """
    if not crossbar.mismatched or is_silent(scale):
        return {}
    gain = noise.normal_like(like, crossbar.gain_mismatch) * scale
    return {"gain": gain, "offset": noise.normal_like(like, crossbar.offset_mismatch) * scale}


def with_read_noise(current: Tensor, power: Callable[[], Tensor], noise: Noise) -> Tensor:
    r"""Currents with white read noise of the cells.

    Independent Gaussian noise of every weight in every product sums up to :math:`N(0, \sum_j s_{ij}^2 x_j^2)`: exact,
    and one product instead of one weight matrix per row.

    Args:
        current: without noise.
        power: gives the variances, shaped like it, in float32 at least: squares leave the range of float16.
        noise: where the noise comes from.
    """
    with torch.no_grad(), torch.autocast(current.device.type, enabled=False):
        variance = power()
        disturbance = noise.normal_like(variance) * variance.clamp(min=0).sqrt()
    return current + disturbance.to(current.dtype)


@dataclass(frozen=True)
class Foot:
    """The foot of a layer's bit lines during one product or look-up.

    Args:
        scale: the weight at full scale, ``(out, row blocks)``; to a converter all is relative to it.
        errors: of the output converters, see `draw_converter_errors`.
        crossbar: the converters.
        noise: where read and output noise come from.
        bound: full scale of the output converters, one for all or ``(slices, row blocks)``; None for none.
        noise_scale: factor on the output noise.
        input_range: what an input at full scale counts.
        observe: is shown what the bit lines carry, as ``"output"``.
    """

    scale: Tensor
    errors: Mapping[str, Tensor]
    crossbar: Crossbar
    noise: Noise
    bound: Tensor | float | None
    noise_scale: Scale = 1.0
    input_range: Tensor | float = 1.0
    observe: Observe | None = None

    def read(
        self,
        current: Tensor,
        power: Callable[[], Tensor] | None,
        of_outputs: OfOutputs,
        *,
        place: int = 0,
        block: int | None = None,
        share: float = 1.0,
    ) -> Tensor:
        """What currents count in the output.

        Args:
            current: what one slice of a block of rows sums up to, in units of the weight.
            power: gives the variances of its read noise; None without.
            of_outputs: says which converters read it.
            place: of the slice.
            block: of rows; None where outputs are of several.
            share: what it counts in the full scale.
        """
        if power is not None:
            current = with_read_noise(current, power, self.noise)
        if self.observe is not None:
            self.observe("output", current / of_outputs(self.scale), place, block)
        noisy = self.crossbar.output_noise and not is_silent(self.noise_scale)
        kind = current.dtype  # under autocast not the input's
        if self.bound is None and not noisy and not self.errors:
            return (current * self.input_range * share if share != 1 else current * self.input_range).to(kind)
        bound = self._bound_of(place, of_outputs)
        step = self._step(of_outputs, bound)
        unit = step.reciprocal().clamp(max=torch.finfo(step.dtype).max)  # a column may hold denormal numbers
        steps, disturbance = steps_of(self.crossbar.adc_bits, bound), None
        if noisy:
            size = self.crossbar.output_noise * self.noise_scale * steps
            disturbance = self.noise.normal_like(current).mul_(size)
        if "gain" in self.errors:
            gain, offset = (of_outputs(self.errors[name][place]) for name in ("gain", "offset"))
            unit = unit * (1 + gain)
            disturbance = offset * steps if disturbance is None else disturbance * (1 + gain) + offset * steps
        step = step if share == 1 else step * share
        return read_out(current, unit, disturbance, step, self.input_range, self.crossbar.adc_bits, bound).to(kind)

    def _bound_of(self, place: int, of_outputs: OfOutputs) -> Tensor | float | None:
        """The bound of the converters of one slice."""
        bound = self.bound
        return of_outputs(bound[place].unsqueeze(0)) if isinstance(bound, Tensor) and bound.ndim else bound

    def _step(self, of_outputs: OfOutputs, bound: Tensor | float | None) -> Tensor:
        """What a step of each converter counts in units of the weight; full scale is one where nothing bounds it."""
        scale = of_outputs(self.scale)
        if bound is None:
            return scale
        # The vector first: two scalars of float32 would make its product in a network of float64 one of float32.
        bits = self.crossbar.adc_bits
        return scale * (bound / (1 if bits is None else (1 << (bits - 1)) - 1))
