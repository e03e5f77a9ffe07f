"""Which elements of a weight a tensor holds: transpositions, slices, reshapes and casts followed symbolically."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Steps = tuple[tuple[int, int], ...]
"""An axis as a nest of loops, slowest first: how many elements, and how far apart in the source."""


def merged(steps: Iterable[tuple[int, int]]) -> Steps:
    """The same loops, as few as can be."""
    found: list[tuple[int, int]] = []
    for size, stride in steps:
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = found[-1][0] * size, stride
        else:
            found.append((size, stride))
    return tuple(found)


def extent(steps: Steps) -> int:
    """How many elements an axis has."""
    found = 1
    for size, _ in steps:
        found *= size
    return found


def places(steps: Steps) -> list[int]:
    """How far each element of an axis is from the first."""
    found = [0]
    for size, stride in steps:
        found = [place + stride * at for place in found for at in range(size)]
    return found


@dataclass(frozen=True)
class View:
    """Which elements of a source, in the order of its memory were it contiguous, a tensor holds.

    Args:
        axes: of the tensor.
        offset: of its first element.
        cut: whether gradients do not reach the source.
    """

    axes: tuple[Steps, ...]
    offset: int = 0
    cut: bool = False

    @classmethod
    def of(cls, shape: Sequence[int]) -> View:
        """All of a source."""
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        return cls(tuple(merged([step]) for step in zip(map(int, shape), strides, strict=True)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple([extent(axis) for axis in self.axes])

    @property
    def reach(self) -> tuple[int, int]:
        """The first and the last place in the source."""
        return self.offset, self.offset + sum([(size - 1) * stride for axis in self.axes for size, stride in axis])

    def permuted(self, order: Sequence[int]) -> View:
        """With its axes in another order."""
        return replace(self, axes=tuple(self.axes[axis] for axis in order))

    def swapped(self, first: int, second: int) -> View:
        """With two axes in each other's place."""
        order = list(range(len(self.axes)))
        order[first], order[second] = order[second], order[first]
        return self.permuted(order)

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """The same elements in order, cut into axes anew; None where an axis would be no nest of loops."""
        left = list(merged([step for axis in self.axes for step in axis]))
        axes: list[Steps] = []
        for wanted in shape:
            need = int(wanted)
            axis: list[tuple[int, int]] = []
            while need > 1:
                if not left:
                    return None
                size, stride = left.pop(0)
                if need % size == 0:
                    axis.append((size, stride))
                    need //= size
                elif size % need == 0:
                    axis.append((need, stride * (size // need)))
                    left.insert(0, (size // need, stride))
                    need = 1
                else:
                    return None
            axes.append(tuple(axis))
        return None if left else replace(self, axes=tuple(axes))

    def narrowed(self, axis: int, start: int, length: int, step: int = 1) -> View | None:
        """A part of an axis; None where that would be no nest of loops."""
        loops = merged(self.axes[axis])
        if length == self.shape[axis]:
            return self
        if not loops or length < 1:
            return None
        inner = extent(loops[1:])
        if len(loops) > 1 and (step != 1 or start % inner or length % inner):
            if start // inner != (start + length - 1) // inner or step != 1:
                return None
            shorter = self.selected_step(axis, start // inner)
            return shorter.narrowed(axis, start % inner, length)
        stride = loops[0][1]
        first = start // inner
        cut = merged([(length // inner, stride * step), *loops[1:]])
        return replace(self, axes=self._with(axis, cut), offset=self.offset + first * stride)

    def selected_step(self, axis: int, place: int) -> View:
        """The slowest loop of an axis stopped at one place."""
        (_, stride), *rest = merged(self.axes[axis])
        return replace(self, axes=self._with(axis, tuple(rest)), offset=self.offset + place * stride)

    def selected(self, axis: int, place: int) -> View:
        """One place of an axis, which is gone then."""
        at = places(self.axes[axis])[place]
        return replace(self, axes=self.axes[:axis] + self.axes[axis + 1 :], offset=self.offset + at)

    def inserted(self, axis: int) -> View:
        """With an axis of size 1."""
        return replace(self, axes=(*self.axes[:axis], (), *self.axes[axis:]))

    def spread(self, shape: Sequence[int]) -> View:
        """Repeated along axes of size 1, and along new ones in front."""
        new = len(shape) - len(self.axes)
        axes: list[Steps] = [((int(size), 0),) for size in shape[:new]]
        for axis, size in zip(self.axes, shape[new:], strict=True):
            axes.append(((int(size), 0),) if not merged(axis) and size > 1 else axis)
        return replace(self, axes=tuple(axes))

    def without(self, axes: Iterable[int]) -> View:
        """Without some axes of size 1."""
        gone = set(axes)
        return replace(self, axes=tuple(axis for place, axis in enumerate(self.axes) if place not in gone))

    def _with(self, axis: int, steps: Steps) -> tuple[Steps, ...]:
        return (*self.axes[:axis], steps, *self.axes[axis + 1 :])


Rule = Callable[[View, tuple[Any, ...], dict[str, Any], Any], "View | list[View | None] | None"]


def _same(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    return view


def _cut(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    return replace(view, cut=True)


def _reversed(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    return view.permuted(range(len(view.axes))[::-1])


def _last_two(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    return view.swapped(-2, -1)


def _transposed(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    named = ("dim0", "axis0"), ("dim1", "axis1")
    first, second = (_argument(args, kwargs, place, *names) for place, names in enumerate(named, 1))
    return view.swapped(first, second)


def _permuted(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    dims = args[1:] if len(args) > 2 or (len(args) == 2 and isinstance(args[1], int)) else args[1:2] or [kwargs["dims"]]
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return view.permuted([axis % len(view.axes) for axis in order])


def _moved(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    source, goal = _argument(args, kwargs, 1, "source"), _argument(args, kwargs, 2, "destination")
    pairs = [(source, goal)] if isinstance(source, int) else list(zip(source, goal, strict=True))
    axes = len(view.axes)
    to = {new % axes: old % axes for old, new in pairs}
    rest = iter(axis for axis in range(axes) if axis not in to.values())
    return view.permuted([to[axis] if axis in to else next(rest) for axis in range(axes)])


def _reshaped(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View | None:
    return view.reshaped(result.shape)


def _viewed(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View | None:
    told = args[1] if len(args) > 1 else kwargs.get("dtype")
    return None if isinstance(told, torch.dtype) else view.reshaped(result.shape)  # other numbers


def _squeezed(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    dim = _argument(args, kwargs, 1, "dim", default=range(len(view.axes)))
    dims = [dim] if isinstance(dim, int) else dim
    return view.without(axis % len(view.axes) for axis in dims if view.shape[axis] == 1)


def _unsqueezed(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    return view.inserted(_argument(args, kwargs, 1, "dim") % (len(view.axes) + 1))


def _spread(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    return view.spread(result.shape)


def _selected(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View:
    return view.selected(_argument(args, kwargs, 1, "dim"), _argument(args, kwargs, 2, "index"))


def _narrowed(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View | None:
    axis = _argument(args, kwargs, 1, "dim") % len(view.axes)
    start = int(_argument(args, kwargs, 2, "start"))
    return view.narrowed(axis, start % view.shape[axis], result.shape[axis])


def _pieces(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[View | None]:
    axis = _argument(args, kwargs, 2, "dim", default=0) % len(view.axes)
    found: list[View | None] = []
    start = 0
    for piece in result:
        found.append(view.narrowed(axis, start, piece.shape[axis]))
        start += piece.shape[axis]
    return found


def _unbound(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> list[View | None]:
    axis = _argument(args, kwargs, 1, "dim", default=0) % len(view.axes)
    return [view.selected(axis, place) for place in range(len(result))]


def _indexed(view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> View | None:
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if not all(_is_plain(part) for part in index):
        return None
    taken = sum(part is not None and part is not Ellipsis for part in index)
    missing = [slice(None)] * (len(view.axes) - taken)
    place = next((at for at, part in enumerate(index) if part is Ellipsis), len(index))
    axis, found = 0, view
    for part in (*index[:place], *missing, *index[place + 1 :]):
        if part is None:
            found, axis = found.inserted(axis), axis + 1
        elif isinstance(part, slice):
            size = found.shape[axis]
            start, _, step = part.indices(size)
            narrowed = found.narrowed(axis, start, len(range(*part.indices(size))), step)
            if narrowed is None:
                return None
            found, axis = narrowed, axis + 1
        else:
            found = found.selected(axis, int(part))
    return found


def _is_plain(part: Any) -> bool:
    """Whether a part of an index is no list of places."""
    if isinstance(part, Tensor):
        return part.ndim == 0 and not part.is_floating_point() and part.dtype != torch.bool
    return part is None or part is Ellipsis or isinstance(part, slice) or (isinstance(part, int) and part is not True)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *names: str, **default: Any) -> Any:
    """An argument by place or by one of its names."""
    if len(args) > place:
        return args[place]
    for name in names:
        if name in kwargs:
            return kwargs[name]
    return default["default"]


def _rules() -> dict[Any, Rule]:
    """By the functions and methods that a forward may call."""
    named: dict[str, Rule] = {
        "t adjoint": _last_two,
        "transpose swapaxes swapdims": _transposed,
        "permute": _permuted,
        "movedim moveaxis": _moved,
        "reshape view_as reshape_as flatten unflatten ravel": _reshaped,
        "view": _viewed,
        "squeeze": _squeezed,
        "unsqueeze": _unsqueezed,
        "expand expand_as broadcast_to": _spread,
        "select": _selected,
        "narrow": _narrowed,
        "chunk split split_with_sizes tensor_split": _pieces,
        "unbind": _unbound,
        "__getitem__": _indexed,
        "contiguous clone to type type_as float double half bfloat16 cuda cpu alias requires_grad_ positive": _same,
        "__pos__ pin_memory conj resolve_conj": _same,
        "detach detach_": _cut,
    }
    found: dict[Any, Rule] = {}
    for names, rule in named.items():
        for name in names.split():
            for home in (Tensor, torch):
                if hasattr(home, name):
                    found[getattr(home, name)] = rule
    for name, rule in {"T": _reversed, "mT": _last_two, "H": _last_two, "mH": _last_two, "data": _cut}.items():
        found[getattr(Tensor, name).__get__] = rule
    # As compiled code has these attributes.
    compiled = {"numpy_T": _reversed, "mT": _last_two, "mH": _last_two, "matrix_H": _last_two}
    found |= {getattr(torch.ops.aten, name): rule for name, rule in compiled.items()}
    return found


RULES = _rules()


def follow(
    func: Any, view: View, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> list[tuple[Tensor, View]] | None:
    """What is known of the answer of a function whose first argument is a view.

    Args:
        func: as a ``TorchFunctionMode`` is told.
        view: what its first argument holds.
        args: its arguments.
        kwargs: those by name.
        result: what it answered.

    Returns:
        The tensors in the answer with what they hold; None where other numbers came out.
    """
    rule = RULES.get(func)
    if rule is None:
        return None
    found = rule(view, args, kwargs, result)
    if isinstance(found, View):
        if not result.is_floating_point():  # a cast that rounds
            return None
        return [(result, found)]
    if found is None or any(piece is None for piece in found):
        return None
    return [(tensor, piece) for tensor, piece in zip(result, found, strict=True) if piece is not None]
