"""Products that a call takes with parts of a matrix, in another form than its layer does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from analogsim.layers.matrix import AnalogMatrix, Drawn, largest_magnitude
from analogsim.layers.products.contractions import Contraction, Labels
from analogsim.layers.products.fitting import Fit, Part, Pick, fit, picked, widened
from analogsim.layers.products.views import Steps, View, extent, merged
from analogsim.layers.state import AnalogState

Draw = Callable[[int], Drawn]
"""Gives the draw of one of the matrices that lie in a weight."""


class Taken(ABC):
    """A matrix as a call takes its product, in the place of its layer's own way.

    Args:
        owner: the matrix.
        rows: its outputs that are read.
        cast: whether the call takes it in the dtype of its input.
    """

    autocasts = True

    def __init__(self, owner: AnalogMatrix, rows: Pick, cast: bool) -> None:
        self.owner = owner
        self._rows = rows
        self._cast = cast

    @property
    def analog(self) -> AnalogState:
        """What is known of the matrix."""
        return self.owner.analog

    @property
    def told(self) -> str | None:
        """See `AnalogMatrix.told`."""
        return None if torch.compiler.is_compiling() else f"{self._way()}, {hash(self._rows)}, {self._cast}"

    @abstractmethod
    def _way(self) -> str:
        """Which product it is, in words."""

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """See `AnalogMatrix.word_lines`."""
        return input, 0

    @abstractmethod
    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""

    @abstractmethod
    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`."""

    @abstractmethod
    def per_output(self, values: Tensor) -> Tensor:
        """See `AnalogMatrix.per_output`."""

    @abstractmethod
    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""

    def _read(self, values: Tensor) -> Tensor:
        """Values of the outputs that are read; one of all stays what it is."""
        return values if len(values) == 1 else picked(values, self._rows)

    def _as_taken(self, rows: Tensor, input: Tensor) -> Tensor:
        """Weights of the outputs that are read, as the call has them."""
        found = picked(rows, self._rows)
        return found.to(input.dtype) if self._cast else found


class TakenLinear(Taken):
    """Linear: inputs ``(..., in)``, outputs ``(..., out)``; in batches ``(..., batch, in)``, ``(..., batch, out)``.

    Args:
        owner: the matrix.
        rows: its outputs that are read.
        cast: whether the call takes it in the dtype of its input.
        batch: how many groups of outputs have inputs of their own; None for one input of all.
    """

    def __init__(self, owner: AnalogMatrix, rows: Pick, cast: bool, batch: int | None) -> None:
        super().__init__(owner, rows, cast)
        self._batch = batch

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        output = self._multiplied(input, weight.flatten(1))
        return output if bias is None else output + self.per_output(bias).to(output.dtype)

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`."""
        return self._multiplied(input[..., start:end], rows)

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """See `AnalogMatrix.word_lines`."""
        return input[..., start:end], start

    def _way(self) -> str:
        return f"linear, {self._batch}"

    def _multiplied(self, input: Tensor, rows: Tensor) -> Tensor:
        weight = self._as_taken(rows, input)
        if self._batch is None:
            return functional.linear(input, weight)
        grouped = weight.view(self._batch, -1, weight.shape[1])
        flat = input.movedim(-2, 0).reshape(self._batch, -1, input.shape[-1])
        answers = torch.bmm(flat, grouped.transpose(1, 2))
        return answers.view(self._batch, *input.shape[:-2], -1).movedim(0, -2)

    def per_output(self, values: Tensor) -> Tensor:
        """See `AnalogMatrix.per_output`."""
        found = self._read(values)
        return found if self._batch is None or len(found) == 1 else found.view(self._batch, -1)

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""
        return largest_magnitude(input, (-1,))


class TakenConvolution(Taken):
    """A convolution with a view of the weight: inputs ``(batch, in, *size)``.

    Args:
        owner: the matrix.
        part: its rows and columns that the kernel has.
        cast: whether the call takes it in the dtype of its input.
        convolve: with an input and a kernel.
        shape: of the kernel; for a transposed convolution ``(groups, out / groups, in / groups, *kernel)``.
        transposed: whether it is one.
    """

    def __init__(
        self,
        owner: AnalogMatrix,
        part: Part,
        cast: bool,
        convolve: partial[Tensor],
        shape: Sequence[int],
        transposed: bool,
    ) -> None:
        super().__init__(owner, part.rows, cast)
        self._cols = part.cols
        self._convolve = convolve
        self._shape = tuple(shape)
        self._transposed = transposed
        self._axes = len(shape) - 2 - transposed

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        kernel = picked(self._as_taken(weight.flatten(1), input), self._cols, 1).reshape(self._shape)
        if self._transposed:
            kernel = kernel.transpose(1, 2).flatten(0, 1)
        output = self._convolve(input, kernel)
        return output if bias is None else output + self.per_output(bias).to(output.dtype)

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`."""
        missing = start, self.analog.shape[1:].numel() - end
        return self.product(input, functional.pad(rows, missing) if any(missing) else rows, None)

    def _way(self) -> str:
        how = self._convolve
        return repr((how.func.__name__, how.keywords, self._shape, hash(self._cols)))

    def per_output(self, values: Tensor) -> Tensor:
        """See `AnalogMatrix.per_output`."""
        return self._read(values).view(-1, *(1,) * self._axes)

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""
        return largest_magnitude(input, tuple(range(-1 - self._axes, 0)))


def answer(taken: Taken, drawn: Drawn, input: Tensor) -> Tensor:
    """What a call's product with a draw comes to, without a bias."""
    output = drawn.taken_by(taken)(input)
    if taken.analog.layout.bias_rows and taken.owner.bias is not None:  # on the crossbar, and not asked for
        output = output - taken.per_output(taken.owner.bias).to(output.dtype)
    return output


class Roles:
    """What the axes of a contraction are to a weight in it.

    Args:
        contraction: the product.
        place: which factor is the weight.
        view: what of it.

    Attributes:
        input: what it is multiplied by, with ``labels``.
        weight: its own labels, with where they lead; not those along which it repeats.
        batch: the labels that are in both and in the answer.
        shared: those that are summed over.
        outputs: those of the weight alone.
        repeated: sizes of the weight's axes.
    """

    def __init__(self, contraction: Contraction, place: int, view: View) -> None:
        self.output = contraction.output
        self.offset = view.offset
        named = [(label, axis) for axis, label in enumerate(contraction.operands[place][1]) if label is not None]
        self.repeated = {label: view.shape[axis] for label, axis in named}
        self.weight = {label: view.axes[axis] for label, axis in named if _moves(view.axes[axis])}
        input, labels = _other_factor(contraction, place)
        self.input, self.labels = self._summed(input, labels)
        self._lost = self.repeated.keys() - self.weight.keys() - {*labels, *self.output}
        self.kept = [label for label in self.labels if label not in self.weight]
        self.batch, self.shared = self._split()
        self.outputs = [label for label in self.weight if label not in self.labels]

    def _summed(self, input: Tensor, labels: list[int]) -> tuple[Tensor, list[int]]:
        """The input without the axes that it is summed over by itself."""
        alone = [axis for axis, label in enumerate(labels) if label not in (*self.output, *self.weight)]
        if not alone:
            return input, labels
        # A weight that repeats along one of them is in each of the summands.
        return input.sum(alone), [label for axis, label in enumerate(labels) if axis not in alone]

    def _split(self) -> tuple[list[int], list[int]]:
        both = [label for label in self.labels if label in self.weight]
        batch = [label for label in both if label in self.output]
        return batch, [label for label in both if label not in batch]

    @property
    def known(self) -> bool:
        """Whether it is a sum over inputs, and over nothing along which the weight alone repeats."""
        sizes = zip(self.labels, self.input.shape, strict=True)  # torch says what is wrong with others
        return bool(self.shared) and not self._lost and all(self.repeated.get(x, n) == n for x, n in sizes)

    def steps(self, labels: list[int]) -> Steps:
        """Where some axes lead in the weight, one after the other."""
        return tuple([step for label in labels for step in self.weight[label]])

    def axes_of(self, weight: View) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which axes of all of a weight are outputs alone, and which are summed over."""
        outputs, inputs = (self.steps(labels) for labels in (self.outputs, self.shared))
        found: tuple[list[int], list[int]] = ([], [])
        for axis, steps in enumerate(weight.axes):
            for size, stride in steps:
                for role, taken in zip(found, (outputs, inputs), strict=True):
                    if any(near <= stride and stride * size <= near * many for many, near in taken):
                        role.append(axis)
        return tuple(found[0]), tuple(found[1])

    @property
    def many(self) -> int | None:
        """How many groups of outputs have inputs of their own; None for one input of all."""
        return extent(self.steps(self.batch)) if self.batch else None

    def driven(self) -> Tensor:
        """The input as ``(..., in)`` or ``(..., batch, in)``."""
        ordered = _arranged(self.input, self.labels, [*self.kept, *self.batch, *self.shared])
        if len(self.shared) == 1 and len(self.batch) < 2:
            return ordered
        groups = [] if self.many is None else [self.many]
        return ordered.reshape(*ordered.shape[: len(self.kept)], *groups, extent(self.steps(self.shared)))

    def arranged(self, answers: Tensor) -> Tensor:
        """Answers ``(..., out)`` or ``(..., batch, out)`` as the call has them."""
        order = [*self.kept, *self.batch, *self.outputs]
        if len(self.batch) > 1 or len(self.outputs) != 1:
            lead = answers.shape[: len(self.kept)]
            answers = answers.reshape(*lead, *[extent(self.weight[label]) for label in (*self.batch, *self.outputs)])
        surplus = [axis for axis, label in enumerate(order) if label not in self.output]
        answers = answers.sum(surplus) if surplus else answers
        order = [label for label in order if label in self.output]
        for label in self.output:  # repeated along axes that hold nothing new
            if label not in order:
                answers = answers.unsqueeze(-1).expand(*answers.shape, self.repeated[label])
                order.append(label)
        return _arranged(answers, order, self.output)


def layout_of(contraction: Contraction, place: int) -> View | None:
    """Where a matrix lies in a factor of a product that takes all of it; None where it is no matrix there."""
    tensor, _ = contraction.operands[place]
    roles = Roles(contraction, place, View.of(tensor.shape))
    return View((roles.steps([*roles.batch, *roles.outputs]), roles.steps(roles.shared))) if roles.known else None


def outputs_first(contraction: Contraction, place: int) -> Tensor | None:
    """A factor of a product as the matrix ``(out, in)`` that it is there; None where it is none."""
    tensor, labels = contraction.operands[place]
    roles = Roles(contraction, place, View.of(tensor.shape))
    if not roles.known:
        return None
    axes = [axis for axis, label in enumerate(labels) if label in roles.weight]
    still = [axis for axis in range(tensor.ndim) if axis not in axes]
    own = [label for label in labels if label in roles.weight]
    moving = tensor.squeeze(still) if still else tensor
    arranged = _arranged(moving, own, [*roles.batch, *roles.outputs, *roles.shared])
    return arranged.reshape(-1, extent(roles.steps(roles.shared)))


def fits(roles: Roles, layouts: Sequence[View]) -> bool:
    """Whether a product with a view of a weight is one with rows and columns of matrices in it."""
    batch, outputs, inputs = (roles.steps(labels) for labels in (roles.batch, roles.outputs, roles.shared))
    return roles.known and fit(tuple(layouts), batch, outputs, inputs, roles.offset) is not None


def contract(
    contraction: Contraction, place: int, view: View, cast: bool, layouts: Sequence[View], draw: Draw
) -> Tensor | None:
    """A product with a view of a weight, on the crossbars that hold it.

    Args:
        contraction: the product.
        place: which factor is the weight.
        view: what of it.
        cast: whether the weight has another dtype in it than in its module.
        layouts: where in the weight the matrices lie.
        draw: their draws.

    Returns:
        None where the matrices have no such rows and columns.
    """
    roles = Roles(contraction, place, view)
    if not roles.known:
        return None
    batch, outputs, inputs = (roles.steps(labels) for labels in (roles.batch, roles.outputs, roles.shared))
    found = fit(tuple(layouts), batch, outputs, inputs, view.offset)
    if found is None:
        return None
    answers = _multiply(found, roles.driven(), roles.many, cast, draw)
    # In the order of memory that torch's products answer in, so that a view of it is one here too.
    return contraction.finished(roles.arranged(answers).contiguous())


def _moves(steps: Steps) -> bool:
    """Whether other elements of a weight follow along an axis."""
    return any(stride for _, stride in merged(steps))


def _other_factor(contraction: Contraction, place: int) -> tuple[Tensor, list[int]]:
    """What a weight is multiplied by: the other factor, or the product of the others as far as it does not sum."""
    factors = [_without_idle(*operand) for at, operand in enumerate(contraction.operands) if at != place]
    if len(factors) == 1:
        return factors[0]
    wanted = {*contraction.output, *contraction.operands[place][1]}
    labels = [label for label in dict.fromkeys([label for _, own in factors for label in own]) if label in wanted]
    return torch.einsum(*[part for factor in factors for part in factor], labels), labels


def _without_idle(tensor: Tensor, labels: Labels) -> tuple[Tensor, list[int]]:
    idle = [axis for axis, label in enumerate(labels) if label is None]
    return tensor.squeeze(idle) if idle else tensor, [label for label in labels if label is not None]


def _arranged(tensor: Tensor, labels: list[int], wanted: list[int]) -> Tensor:
    """With its axes in another order."""
    return tensor if labels == wanted else tensor.permute([labels.index(label) for label in wanted])


def _multiply(found: Fit, driven: Tensor, batch: int | None, cast: bool, draw: Draw) -> Tensor:
    """The answers ``(..., out)`` or ``(..., batch, out)`` of the matrices to inputs of this form."""
    if len(found) == 1 and len(found[0]) == 1:
        return _part(found[0][0], driven, batch, cast, draw)
    if batch is None:
        return torch.cat([_part(part, driven, None, cast, draw) for part in found[0]], -1)
    lines = zip(found, driven.unbind(-2), strict=True)
    return torch.stack(
        [torch.cat([_part(part, row, None, cast, draw) for part in parts], -1) for parts, row in lines], -2
    )


def _part(part: Part, driven: Tensor, batch: int | None, cast: bool, draw: Draw) -> Tensor:
    drawn = draw(part.matrix)
    owner = drawn.owner
    taken = TakenLinear(owner, part.rows, cast, batch)
    return answer(taken, drawn, widened(driven, part.cols, owner.analog.shape[1:].numel()))


def convolution(
    convolve: partial[Tensor],
    input: Tensor,
    view: View,
    groups: int,
    transposed: bool,
    cast: bool,
    layouts: Sequence[View],
    draw: Draw,
) -> Tensor | None:
    """A convolution with a view of a weight, on the crossbar that holds it; without a bias.

    Args:
        convolve: with an input and a kernel, as the call says.
        input: the input.
        view: what of the weight the kernel is.
        groups: those of the call.
        transposed: whether it is a transposed convolution.
        cast: whether the weight has another dtype in it than in its module.
        layouts: where in the weight the matrices lie.
        draw: their draws.

    Returns:
        None where no matrix has such rows and columns.
    """
    turned: View | None = view
    if transposed:
        turned = view.reshaped((groups, view.shape[0] // groups, *view.shape[1:]))
        turned = None if turned is None else turned.swapped(1, 2)
    if turned is None:
        return None
    heads = 1 + transposed
    outputs, inputs = (
        tuple([step for axis in axes for step in axis]) for axes in (turned.axes[:heads], turned.axes[heads:])
    )
    found = fit(tuple(layouts), (), outputs, inputs, view.offset)
    if found is None or len(found[0]) != 1:
        return None
    ((part,),) = found
    drawn = draw(part.matrix)
    taken = TakenConvolution(drawn.owner, part, cast, convolve, turned.shape, transposed)
    return answer(taken, drawn, input)
