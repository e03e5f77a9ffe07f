"""Where a matrix lies in the Parameters of its module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from analogsim.errors import InvalidTypeError, InvalidValueError, MissingAttributeError
from analogsim.layers.products.views import View
from analogsim.utils.checks import check_flag
from analogsim.utils.torch_private import forward_pre_hooks, own_parameters

Multiply = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Slot:
    """Where a matrix lies in the Parameters of its module.

    Args:
        weight: name of the Parameter.
        bias: name of the Parameter of its bias; None for a matrix without.
        rows: the part of both, ``(start, end)`` along the first axis; None for all. A Parameter that is just as long as
            the part is all of it.
        transposed: the Parameter is ``(in, out / groups, ...)``.
        groups: of outputs with inputs of their own.
        product: how one of several matrices of a module is multiplied by an input, ``product(input, weight, bias)``
            with the weight as it lies in the Parameter: a function, or a ``functools.partial`` of one such as
            ``functional.conv2d`` with its stride. None: linear, unless the class of the layer says otherwise.
        index: its place along the first axis of both, where a Parameter ``(experts, out, in)`` holds many matrices.
    """

    weight: str = "weight"
    bias: str | None = "bias"
    rows: tuple[int, int] | None = None
    transposed: bool = False
    groups: int = 1
    product: Multiply | None = field(default=None, compare=False)
    index: int | None = None
    computed: ClassVar[bool] = False
    """Whether the forward of the module computes the matrix from the Parameter."""

    def check(self, module: nn.Module) -> None:
        """Raise unless a module has what is said here, and the product, where we know it, takes it so.

        Raises:
            AttributeError: there is no such weight, or no such bias.
            TypeError: the product cannot be called.
            ValueError: the product is a convolution of other groups, or is transposed and the slot is not, or the like.
        """
        check_flag(self.transposed, f"slots: transposed of {self.weight!r}")
        kind, attributes = (
            type(module).__name__,
            dir(module),
        )  # asking for one may compute it, and spectral norm move on
        for name in (self.weight, self.bias):
            if name not in (None, "bias", *attributes):  # "bias" is there by default
                there = ", ".join(known for known, _ in module.named_parameters(recurse=False))
                raise MissingAttributeError(
                    f"slots: {kind} has no Parameter {name!r}; it has {there or 'none of its own'}"
                )
        if self.product is None:
            return
        if not callable(self.product):
            raise InvalidTypeError(f"slots: the product of {self.weight!r} must be a function, got {self.product!r}")
        function, told = self.product, {}
        if isinstance(self.product, partial):
            function, told = self.product.func, self.product.keywords
        if function in _CONVOLUTIONS and told.get("groups", 1) != self.groups:
            raise InvalidValueError(
                f"slots: the product of {self.weight!r} in {kind} has groups={told.get('groups', 1)}, and its slot has "
                f"groups={self.groups}; say it in both"
            )
        if function in _CONVOLUTIONS and _CONVOLUTIONS[function] != self.transposed:
            raise InvalidValueError(
                f"slots: the product of {self.weight!r} in {kind} is {function.__name__}, which needs "
                f"Slot(transposed={_CONVOLUTIONS[function]})"
            )

    def matrix(self, module: nn.Module) -> Tensor:
        """The matrix ``(out, ...)``, one row per output; a view of the Parameter but for transposed groups."""
        weight = self.weight_of(module)
        return self.turned(weight) if self.transposed else weight

    def settled(self, module: nn.Module) -> Tensor:
        """The matrix as the forward of the module will take it, which may write into the Parameter first."""
        return self.matrix(module)

    def weight_of(self, module: nn.Module) -> Tensor:
        """The weight as it lies in the Parameter: the matrix, or ``(in, out / groups, ...)`` where it is transposed."""
        return self._part(cast(Tensor, getattr(module, self.weight)))

    def taken(self, input: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        """The product of an input and a matrix ``(out, ...)``.

        Raises:
            TypeError: it has more than two axes, and there is no word on how its product is taken.
        """
        if self.product is not None:
            return self.product(input, self.turned(matrix) if self.transposed else matrix, bias)
        if matrix.ndim != 2:
            raise InvalidTypeError(
                f"the weight {self.weight!r} is a matrix {tuple(matrix.shape)}, which takes part in no linear map: say "
                f"in slots what its product is, as in Slot({self.weight!r}, product=torch.nn.functional.conv2d)"
            )
        return functional.linear(input, matrix, bias)

    @property
    def part(self) -> tuple[int, int] | None:
        """Which part of the Parameter, along the first axis, the matrix takes; None for all."""
        return self.rows if self.index is None else (self.index, self.index + 1)

    def _part(self, tensor: Tensor) -> Tensor:
        if self.index is not None:
            return tensor[self.index]
        if self.rows is None or len(tensor) == self.rows[1] - self.rows[0]:
            return tensor
        return tensor[slice(*self.rows)]

    def turned(self, weight: Tensor) -> Tensor:
        """``(in, out / groups, ...)`` as ``(out, in / groups, ...)`` and back: it is its own inverse."""
        if self.groups == 1:
            return weight.transpose(0, 1)
        grouped = weight.view(self.groups, -1, *weight.shape[1:])
        return grouped.transpose(1, 2).flatten(0, 1)

    def view(self, shape: Sequence[int]) -> View | None:
        """Where in a weight of this shape the matrix lies, its outputs along the first axis; None where none knows."""
        if type(self).matrix is not Slot.matrix:
            return None
        whole = View.of(shape)
        part: View | None = whole
        if self.index is not None:
            part = whole.selected(0, self.index)
        elif self.rows is not None:
            part = whole.narrowed(0, self.rows[0], self.rows[1] - self.rows[0])
        if part is None or not self.transposed:
            return part
        if self.groups == 1:
            return part.swapped(0, 1)
        grouped = part.reshaped((self.groups, part.shape[0] // self.groups, *part.shape[1:]))
        turned = None if grouped is None else grouped.swapped(1, 2)
        return None if turned is None else replace(turned, axes=(turned.axes[0] + turned.axes[1], *turned.axes[2:]))

    def bias_of(self, module: nn.Module) -> Tensor | None:
        """The bias ``(out,)``, or None."""
        bias: Tensor | None = None if self.bias is None else getattr(module, self.bias, None)
        return None if bias is None else self._part(bias)

    def parameters(self, module: nn.Module) -> list[nn.Parameter]:
        """The Parameters in which weight and bias lie, or from which they are computed (pruning, weight norm)."""
        found = []
        for name in (self.weight, self.bias):
            own = None if name is None else own_parameters(module).get(name)
            if own is not None:
                found.append(own)
            elif name is not None and parametrize.is_parametrized(module, name):
                found += cast(nn.ModuleDict, module.parametrizations)[name].parameters()
            elif name is not None:  # torch's older ways call them weight_orig, weight_g, weight_v
                hidden = module.named_parameters(recurse=False)
                found += [tensor for entry, tensor in hidden if entry.startswith(f"{name}_")]
        return found

    def size(self, tensor: Tensor) -> int:
        """How many elements of one of these Parameters belong to the matrix and its bias."""
        return self._part(tensor).numel()

    @torch.no_grad()
    def write(self, tensor: Tensor, matrix: Tensor) -> None:
        """Write a matrix ``(out, ...)`` into its place in a tensor shaped like the Parameter, or like its own part."""
        self._part(tensor).copy_(self.turned(matrix) if self.transposed else matrix)

    @torch.no_grad()
    def put(self, module: nn.Module, matrix: Tensor, bias: Tensor | None = None) -> None:
        """Write a matrix (and a bias) into the Parameters of a module."""
        self.write(getattr(module, self.weight), matrix)
        own = self.bias_of(module)
        if bias is not None and own is not None:
            own.copy_(bias)


@torch.no_grad()
def still(module: nn.Module, slot: Slot) -> tuple[Tensor, Tensor | None]:
    """Matrix and bias as they are now, detached. Reading them changes nothing, as spectral norm would in training."""
    rules = getattr(module, "parametrizations", None)
    modes = [(part, part.training) for part in (module, *(() if rules is None else rules.modules()))]
    try:
        for part, _ in modes:
            part.training = False
        for hook in forward_pre_hooks(module).values():
            if isinstance(hook, OLDER_RULES):  # what they compute lags behind until the next forward
                hook(module, None)
        bias = slot.bias_of(module)
        return slot.settled(module).detach(), None if bias is None else bias.detach()
    finally:
        for part, mode in modes:
            part.training = mode


# Torch's own, and whether they are transposed.
_CONVOLUTIONS: dict[Callable[..., Tensor], bool] = {
    functional.conv1d: False,
    functional.conv2d: False,
    functional.conv3d: False,
    functional.conv_transpose1d: True,
    functional.conv_transpose2d: True,
    functional.conv_transpose3d: True,
}

OLDER_RULES = (WeightNorm, SpectralNorm, BasePruningMethod)
"""torch's older ways to compute a weight, which do it before each forward."""
