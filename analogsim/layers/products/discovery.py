"""Products that a network's forward on an example takes with bare Parameters of modules that nobody registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from analogsim.layers.products.calls import CONVOLUTIONS, TRANSPOSED, named_call
from analogsim.layers.products.computed import Computations, Notes
from analogsim.layers.products.contractions import PARSERS, contraction_of
from analogsim.layers.products.taken import Roles, fits
from analogsim.layers.products.views import View, follow
from analogsim.layers.slot import Slot
from analogsim.utils.modules import visited
from analogsim.utils.torch_private import own_parameters


@dataclass(frozen=True)
class FoldedSlot(Slot):
    """A matrix whose outputs and inputs are several axes of a Parameter each, such as ``(in, heads, size)``.

    Args:
        outputs: the axes of the Parameter over which outputs are spread.
        inputs: those over which inputs are.
    """

    outputs: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()

    def matrix(self, module: nn.Module) -> Tensor:
        """See `Slot.matrix`."""
        weight = self.weight_of(module).permute(*self.outputs, *self.inputs)
        return weight.flatten(len(self.outputs)).flatten(0, -2)

    def view(self, shape: Iterable[int]) -> View | None:
        """See `Slot.view`."""
        whole = View.of(tuple(shape))
        rows, cols = ([step for axis in axes for step in whole.axes[axis]] for axes in (self.outputs, self.inputs))
        return View((tuple(rows), tuple(cols)))

    @torch.no_grad()
    def put(self, module: nn.Module, matrix: Tensor, bias: Tensor | None = None) -> None:
        """See `Slot.put`."""
        weight = self.weight_of(module).permute(*self.outputs, *self.inputs)
        weight.copy_(matrix.view(weight.shape))


class Discovery(TorchFunctionMode):
    """Finds out, within the block, in which products modules take their own Parameters.

    A product with what the network computes from nothing but Parameters and buffers (the power iteration of a spectral
    norm, a learned query, the factors of a matrix) is none with inputs, and does not count.

    Args:
        model: the network.
        modules: those of it to look at, each with the names of its Parameters that could be matrices.
    """

    def __init__(self, model: nn.Module, modules: Mapping[nn.Module, Iterable[str]]) -> None:
        super().__init__()
        self._still = Computations(model)
        self._known: Notes[tuple[nn.Module, str, View]] = Notes()
        for module, names in modules.items():
            for name in names:
                parameter = own_parameters(module).get(name)
                if parameter is not None:
                    self._known[parameter] = module, name, View.of(parameter.shape)
        self._inside: list[nn.Module] = []
        self.found: dict[nn.Module, dict[str, Slot]] = {}

    def run(self, forward: Callable[[], object]) -> None:
        """Call a forward, and look at its products."""
        with visited(self._inside.append, lambda module: self._inside.remove(module)), self:
            forward()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note a product with what comes from a Parameter, in the forward of its module."""
        named = dict(kwargs or {})
        if func in CONVOLUTIONS:
            self._convolved(func, named_call(func, args, named))
        elif func in PARSERS:
            self._contracted(func, args, named)
        result = func(*args, **named)
        first = self._known.get(args[0]) if args else None
        if first is not None:
            for tensor, view in follow(func, first[2], args, named, result) or ():
                self._known[tensor] = *first[:2], view
        self._still.note(args, named, result)
        return result

    def _convolved(self, func: Any, call: dict[str, Any]) -> None:
        known = self._known.get(call["weight"])
        if known is None or self._still.holds(call["input"]):
            return
        module, name, view = known
        shape = own_parameters(module)[name].shape  # type: ignore[union-attr]
        if view.axes == View.of(shape).axes and not view.offset:
            groups, transposed = call.get("groups", 1), func in TRANSPOSED
            self._note(module, {name: Slot(name, None, transposed=transposed, groups=groups)}, call.get("bias"))

    def _contracted(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        contraction = contraction_of(func, args, kwargs)
        for place, (tensor, _) in enumerate(() if contraction is None else contraction.operands):
            known = self._known.get(tensor)
            if contraction is None or known is None or known[0] not in self._inside:
                continue
            if all(self._still.holds(other) for other, _ in contraction.operands):
                continue
            module, name, view = known
            slots = _slots(Roles(contraction, place, view), name, own_parameters(module)[name])
            if slots:
                self._note(module, slots, contraction.addend)

    def _note(self, module: nn.Module, slots: dict[str, Slot], bias: Tensor | None) -> None:
        if module not in self._inside:
            return
        own = {id(parameter): name for name, parameter in own_parameters(module).items() if parameter is not None}
        told = own.get(id(bias)) if bias is not None and bias.ndim == 1 else None
        known = self.found.setdefault(module, {})
        weights = {slot.weight for slot in slots.values()}
        if not any(slot.weight in weights for slot in known.values()):  # of several products the first counts
            known |= {label: slot if told is None else _with_bias(slot, told) for label, slot in slots.items()}


def _with_bias(slot: Slot, bias: str) -> Slot:
    if type(slot) is not Slot or slot.index is not None:
        return slot
    return Slot(slot.weight, bias, transposed=slot.transposed, groups=slot.groups)


def _slots(taken: Roles, name: str, parameter: Tensor | None) -> dict[str, Slot]:
    """The matrices in a Parameter with which a product is one of rows and columns; none where there are none such."""
    if parameter is None:
        return {}
    shape = parameter.shape
    proposals: list[dict[str, Slot]] = []
    outputs, inputs = taken.axes_of(View.of(shape))
    if outputs and inputs and len(outputs) + len(inputs) == parameter.ndim > 2:
        proposals.append({name: FoldedSlot(name, None, outputs=outputs, inputs=inputs)})
    for transposed in (False, True):
        if parameter.ndim == 2:
            proposals.append({name: Slot(name, None, transposed=transposed)})
        if parameter.ndim == 3:
            many = range(len(parameter))
            proposals.append({f"{name}.{i}": Slot(name, None, transposed=transposed, index=i) for i in many})
    for slots in proposals:
        layouts = [layout for slot in slots.values() if (layout := slot.view(shape)) is not None]
        if fits(taken, layouts):
            return slots
    return {}
