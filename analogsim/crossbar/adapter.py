"""Digital numbers behind a matrix that training moves while the weights stay: scales, offsets, a low-rank product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from analogsim.crossbar.stages import Affine, Outputs, Plain
from analogsim.errors import InvalidValueError
from analogsim.noise.sources import Scale, is_silent
from analogsim.utils.times import label


@dataclass(frozen=True, eq=False)
class Adapted:
    """An adapter as it is at one age: the digital stage behind a draw.

    Args:
        affine: scales and offsets of the product of the crossbars.
        beside: the weight ``(out, ...)`` of the digital product that is added; None for none.
    """

    affine: Affine
    beside: Tensor | None

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        """See `Stage.after`."""
        found = self.affine.after(product, input, outputs)
        if self.beside is None:
            return found
        return found + outputs.product(input, self.beside.to(input.dtype), None).to(found.dtype)

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
        """See `Stage.folded`."""
        found, offset = self.affine.folded(weight, bias)
        return (found if self.beside is None else found + self.beside.to(found.dtype)), offset


@dataclass(eq=False)
class Adapter:
    r"""Digital numbers behind a matrix, which are no Parameters of the network and are trained apart from them.

    .. math:: y = s(t) \circ \tilde W x + o(t) + B\, \mathrm{diag}(g(t))\, A\, x + b

    with the product :math:`\tilde W x` of the crossbars, the digital bias :math:`b`, and for each output a scale
    :math:`s` and an offset :math:`o`. Of rank 0 there are no :math:`A, B, g`. A convolution takes :math:`A` as one of
    ``rank`` channels with its own stride and padding, and :math:`B` at each position.

    One adapter may be for several ages :math:`t` of a chip: vectors are then kept for each, and between two ages
    interpolated linearly over the logarithm of time. Before the first age and after the last the nearest one holds.

    Args:
        scale: ``(ages, out)``.
        offset: ``(ages, out)``, in the unit of the output.
        down: :math:`A`, ``(rank, ...)``, shaped behind the first axis as the matrix; None of rank 0.
        up: :math:`B`, ``(out, rank)``, in units of the weight where ``down`` has none; None of rank 0.
        strength: :math:`g`, ``(ages, rank)``; None for 1, or of rank 0.
        ages: since programming, seconds, rising; empty for one set of vectors at any age.
        seed: the chip that it was trained on; None where that was no one chip.

    Source: Hu et al., LoRA, ICLR (2022); vectors between products that are kept, Kopiczko et al., VeRA, ICLR (2024).
    Departure: scales and offsets besides, and vectors that follow the age.
    """

    scale: Tensor
    offset: Tensor
    down: Tensor | None = None
    up: Tensor | None = None
    strength: Tensor | None = None
    ages: tuple[float, ...] = ()
    seed: int | None = None

    @classmethod
    def fresh(cls, matrix: Tensor, rank: int, ages: Sequence[float] = ()) -> Adapter:
        """One that changes nothing yet: ``down`` is drawn like the weights from torch's generator, ``up`` is 0.

        Args:
            matrix: the weights ``(out, ...)``.
            rank: of the digital product; 0 for none.
            ages: see `Adapter`.
        """
        outputs, sets = len(matrix), max(1, len(ages))
        kind = torch.float64 if matrix.dtype is torch.float64 else torch.float32
        with torch.inference_mode(False), torch.no_grad():
            like = torch.empty(0, dtype=kind, device=matrix.device)
            scale, offset = like.new_ones(sets, outputs), like.new_zeros(sets, outputs)
            down = up = strength = None
            if rank:
                size = matrix.detach().to(kind).square().mean().sqrt()
                down = torch.randn(rank, *matrix.shape[1:], dtype=kind, device=matrix.device) * size
                up = like.new_zeros(outputs, rank)
                strength = like.new_ones(sets, rank) if ages else None
            found = cls(scale, offset, down, up, strength, tuple(ages))
            for value in found.tensors.values():
                value.requires_grad_()
        return found

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        held = {
            "scale": self.scale,
            "offset": self.offset,
            "down": self.down,
            "up": self.up,
            "strength": self.strength,
        }
        return {name: value for name, value in held.items() if value is not None}

    @property
    def rank(self) -> int:
        """Of the digital product; 0 without."""
        return 0 if self.up is None else self.up.shape[1]

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return sum(value.numel() for value in self.tensors.values())

    def age_of_draw(self, times: Sequence[float], scale: Scale, title: str) -> float:
        """The age of a fresh draw, which is no chip.

        Args:
            times: at which training draws.
            scale: how much of the errors it sees.
            title: of the layer, for the message.

        Raises:
            ValueError: it has numbers for several ages, and the draw may be of any.
        """
        if len(self.ages) <= 1 or len(set(times)) == 1:
            return times[0]
        if is_silent(scale):  # nothing has happened to it
            return self.ages[0]
        raise InvalidValueError(
            f"layer {title!r}: its adapter has numbers for {len(self.ages)} ages, and a draw in training may be of any "
            'age: analogsim.set_train_times(analog, ("1d",)) says which, or train it on a chip, as analogsim.fine_tune '
            "does"
        )

    def at(self, age: float, place: torch.device) -> Adapted:
        """What stands behind a draw.

        Args:
            age: of the chip, seconds.
            place: where the weights are.
        """
        scale, offset = self._vector(self.scale, age, place), self._vector(self.offset, age, place)
        if self.down is None or self.up is None:
            return Adapted(Affine(scale, offset), None)
        up, down = self.up.to(place), self.down.to(place)
        if self.strength is not None:
            up = up * self._vector(self.strength, age, place)
        return Adapted(Affine(scale, offset), (up @ down.flatten(1)).view(len(up), *down.shape[1:]))

    def _vector(self, values: Tensor, age: float, place: torch.device) -> Tensor:
        """One of the vectors at an age."""
        values = values.to(place)
        above = sum(each < age for each in self.ages)
        if not self.ages or above == 0:
            return values[0]
        if above == len(self.ages):
            return values[-1]
        low, high = self.ages[above - 1 : above + 1]
        share = math.log(age / low) / math.log(high / low)
        return torch.lerp(values[above - 1], values[above], share)

    def describe(self) -> str:
        """For ``print(analog)``."""
        kind = f"adapter of rank {self.rank}" if self.rank else "adapter of scales and offsets"
        ages = f" for {', '.join(map(label, self.ages))}" if self.ages else ""
        return f"{kind}{ages}"
