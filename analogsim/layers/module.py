"""Modules with one matrix or several on crossbars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from analogsim.crossbar.crossbar import IDEAL
from analogsim.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingKeyError,
    NotProgrammedError,
    NotRoutedError,
    StaleTwinError,
)
from analogsim.layers.matrix import AnalogMatrix, Drawn, ModuleMatrix
from analogsim.layers.slot import OLDER_RULES, Slot
from analogsim.layers.state import AnalogState, Answering, Look, MatrixChip
from analogsim.utils.checks import check_module
from analogsim.utils.modules import in_eval
from analogsim.utils.torch_private import forward_pre_hooks, own_parameters


class AnalogModule(nn.Module):
    """A module that stands for a digital one, with one matrix or several on crossbars.

    Subclasses also derive from the digital module. They say in `slots` where its matrices lie, and in ``forward`` take
    the products with `draw_of`, one draw of each matrix for each forward.

    Attributes:
        matrices: those that are analog, by label.
    """

    stands_for: ClassVar[type[nn.Module]]
    stored: ClassVar[bool] = False  # a table that is looked up: analog only on request
    analog_only: ClassVar[tuple[str, ...]] = ("matrices",)  # attributes that the digital module does not have
    matrices: Mapping[str, AnalogMatrix]

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """The matrices of a digital module by label."""
        raise NotImplementedError(f"{cls.__name__} must implement slots(module)")

    def attach(self, states: dict[str, AnalogState], module: nn.Module) -> None:
        """Take over what is known of the analog ones among the matrices of a digital module."""
        slots = self.slots(module)
        for label, state in states.items():
            _place(state, slots[label], module)
        self.__dict__["matrices"] = {label: ModuleMatrix(self, state) for label, state in states.items()}

    def draw_of(self, label: str) -> Drawn | Clean:
        """What one forward finds in a matrix: a draw, or the clean weights where it stays digital."""
        if label in self.matrices:
            return self.matrices[label].draw()
        slots = self.slots(self)
        if label not in slots:
            raise MissingKeyError(
                f"draw_of: {type(self).__name__} has no matrix {label!r}; its slots are {', '.join(slots)}"
            )
        return Clean(self, slots[label])

    def train(self, mode: bool = True) -> Self:
        """As in torch; a programmed chip is compared with the weights again at the next eval forward."""
        for matrix in self.matrices.values():
            if matrix.analog.chip is not None:
                matrix.analog.chip.suspect()
        return super().train(mode)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As in torch.

        Raises:
            StaleTwinError: a weight was taken apart, and would be missing.
        """
        for matrix in self.matrices.values():
            matrix.check_intact()
        return super().state_dict(*args, **kwargs)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As in torch.

        Raises:
            StaleTwinError: it is a piece of a weight or bias, which would be taken apart in the model too.
        """
        own = own_parameters(self)
        for entry, _ in self._entries():
            if name in own or not (name == entry or name.startswith(f"{entry}_")):
                continue
            if name == f"{entry}_g" and entry not in own:
                break  # of torch's older weight norm, which is not done yet
            if entry not in own and name != entry and param is not None:  # it has been taken out already
                own.pop(f"{entry}_g", None)
                own[entry] = param
            self._refuse_rebuilding(entry)
        super().register_parameter(name, param)

    def __delattr__(self, name: str) -> None:
        if any(name == entry for entry, _ in self._entries()):
            self._refuse_rebuilding(name)
        super().__delattr__(name)

    def _entries(self) -> list[tuple[str, bool]]:
        """The weights and biases that belong to matrices on crossbars."""
        matrices = self.__dict__.get("matrices") or ({"": self} if "analog" in self.__dict__ else {})
        return [entry for matrix in matrices.values() for entry in cast(AnalogMatrix, matrix).analog.entries]

    def _refuse_rebuilding(self, entry: str) -> None:
        raise StaleTwinError(
            f"{entry!r} of {type(self).__name__} belongs to the twin and to its model, which share their Parameters: "
            "prune or parametrize the model (or undo it), and call analogsim.convert again"
        )

    def extra_repr(self) -> str:
        """The digital module's own, with device, crossbar and chip."""
        told: dict[str, None] = {}
        for matrix in self.matrices.values():
            state = matrix.analog
            chip = "no chip" if state.chip is None else state.chip.describe()
            crossbar = str(state.crossbar)
            adapter = "" if state.adapter is None else f", {state.adapter.describe()}"
            told[f"device={state.device.name}, {crossbar + ', ' if crossbar != 'ideal' else ''}{chip}{adapter}"] = None
        return ", ".join(part for part in (super().extra_repr(), *told) if part)


def check_rules(module: nn.Module, args: object) -> None:
    """A hook before the forward: raise unless what the weights are computed from is still there.

    Raises:
        StaleTwinError: it is not.
    """
    for matrix in cast(AnalogModule, module).matrices.values():
        matrix.check_intact()


def watch_rules(analog: nn.Module) -> None:
    """Let the layers of a twin whose weights are computed by hooks (torch's older pruning and norms) check them first.

    Where such a rule is taken off the model, the hook of the twin would look for what is gone.
    """
    for module in analog.modules():
        if isinstance(module, AnalogModule) and any(
            isinstance(hook, OLDER_RULES) for hook in forward_pre_hooks(module).values()
        ):
            module.register_forward_pre_hook(check_rules, prepend=True)


def unwatch_rules(module: nn.Module) -> None:
    """Take off what `watch_rules` put on."""
    hooks = forward_pre_hooks(module)
    for number in [number for number, hook in hooks.items() if hook is check_rules]:
        del hooks[number]


def _place(state: AnalogState, slot: Slot, module: nn.Module) -> None:
    """Note where a matrix lies in a module."""
    own = own_parameters(module)
    state.slot = slot
    state.entries = tuple((name, name in own) for name in (slot.weight, slot.bias) if name is not None)
    state.watched = not all(there for _, there in state.entries)
    state.biased = slot.bias is not None and own.get(slot.bias) is not None
    state.beside = tuple(name for name, value in vars(module).items() if isinstance(value, Tensor))


class Clean:
    """The exact products of a matrix that stays digital, in the form of a `Drawn`.

    Args:
        module: has the matrix.
        slot: says where.
    """

    def __init__(self, module: nn.Module, slot: Slot) -> None:
        self.plain: tuple[Tensor, Tensor | None] = slot.matrix(module), slot.bias_of(module)
        self._slot = slot

    def __call__(self, input: Tensor) -> Tensor:
        """The product with an input; ``(..., out)`` of one ``(..., in)`` unless the slot says otherwise."""
        return self._slot.taken(input, *self.plain)


class Extended(AnalogModule):
    """Runs the forward of a subclass that ends in the forward of its base, which is the analog one here.

    The class of a module derives from this, the subclass and the base's analog class, in this order: behind the
    subclass, ``super().forward`` finds the analog forward.
    """

    def draw_of(self, label: str) -> Drawn | Clean:
        """See `AnalogModule.draw_of`; notes what is drawn."""
        drawn = self.__dict__.get("drawn")
        if drawn is not None:
            drawn.add(label)
        return super().draw_of(label)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The subclass's own.

        Raises:
            NotRoutedError: it went past the analog forward of its base.
        """
        if torch.compiler.is_compiling():
            return self.stands_for.forward(self, *args, **kwargs)
        drawn = self.__dict__["drawn"] = set[str]()
        try:
            output = self.stands_for.forward(self, *args, **kwargs)
        finally:
            del self.__dict__["drawn"]
        for label, matrix in self.matrices.items():
            if label not in drawn:
                raise NotRoutedError(
                    f"layer {matrix.analog.title!r}: the forward of {self.stands_for.__name__} did not come to that of "
                    "its base by super().forward, so that its products cannot run analog; map the layer to None, or "
                    "give its type an analog layer (analogsim.register_layer)"
                )
        return output


class AnalogLayer(AnalogMatrix, AnalogModule):
    """A layer with one matrix, whose products run on crossbars.

    Subclasses also derive from the digital layer and implement `product`. Their weight is a Parameter ``weight`` of
    shape ``(out, ...)``, unless `slots` says otherwise.
    """

    weight: Tensor
    analog_only = ("analog",)

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`; the label of the one matrix is empty."""
        return {"": Slot()}

    def attach(self, states: dict[str, AnalogState], module: nn.Module) -> None:
        """See `AnalogModule.attach`."""
        _place(states[""], self.slots(module)[""], module)
        self.__dict__["analog"] = states[""]

    @property
    def matrices(self) -> Mapping[str, AnalogMatrix]:  # type: ignore[override]
        """Itself."""
        return {"": self} if "analog" in self.__dict__ else {}

    @property
    def holder(self) -> nn.Module:
        """Itself."""
        return self

    def forward(self, input: Tensor) -> Tensor:
        """The layer's answer: fresh noise in training, the programmed chip in eval."""
        return self.draw()(input)


def checked_slots(kind: type[AnalogModule], module: nn.Module) -> Mapping[str, Slot]:
    """The matrices of a digital module by label, as its analog class says, if it says it as it should.

    Raises:
        TypeError: ``slots`` gives no mapping of labels to `Slot`.
        ValueError: a class with one matrix gives it another label than ``""``.
    """
    slots: Any = kind.slots(module)
    entries = slots.items() if isinstance(slots, Mapping) else [(None, slots)]
    for label, slot in entries:
        if not isinstance(label, str) or not isinstance(slot, Slot):
            raise InvalidTypeError(
                f"slots: {kind.__name__}.slots must return a dict of Slot by label, such as {{'proj': Slot('weight', "
                f"'bias')}}, got {slots!r}"
            )
    if issubclass(kind, AnalogLayer) and list(slots) != [""]:
        raise InvalidValueError(
            f"slots: {kind.__name__} is an AnalogLayer, whose one matrix has the label '', got {list(slots)}; derive "
            "from AnalogModule for several"
        )
    return cast(Mapping[str, Slot], slots)


def matrices_in(model: nn.Module) -> list[AnalogMatrix]:
    """The analog matrices in a module, each once; none if there are none.

    By their names chips are drawn and files are written. Twins that were converted one by one and stand in one module,
    such as an encoder beside a decoder, may have layers of the same name: from the first use of that module on, their
    matrices have the names that they have in it.

    Raises:
        TypeError: it is no module.
    """
    check_module(model, "the twin that analogsim.convert(model, ...) returned")
    modules = [module for module in model.modules() if isinstance(module, AnalogModule)]
    matrices = [matrix for module in modules for matrix in module.matrices.values()]
    if len({matrix.analog.name for matrix in matrices}) < len(matrices):
        _name_by_place(model)
    return matrices


def _name_by_place(model: nn.Module) -> None:
    """Put in front of each matrix's name, which is that in its twin, where the twin stands."""
    for place, module in model.named_modules():
        if isinstance(module, AnalogModule):
            for label, matrix in module.matrices.items():
                layer = matrix.analog.name.removesuffix(label).removesuffix(".")
                twin = place.removesuffix(layer).removesuffix(".") if f".{place}".endswith(f".{layer}") else place
                matrix.analog.name = ".".join(part for part in (twin, matrix.analog.name) if part)
                if matrix.analog.chip is not None:
                    matrix.analog.chip.name = matrix.analog.name


def matrices_of(model: nn.Module) -> list[AnalogMatrix]:
    """The analog matrices of a twin, each once.

    Raises:
        ValueError: there are none; the model is not what `convert` returned.
    """
    matrices = matrices_in(model)
    if not matrices:
        raise InvalidValueError(
            f"{type(model).__name__} has no analog layer: give the twin that analogsim.convert(model, ...) returned"
        )
    return matrices


@contextmanager
def drawn_in_eval(analog: nn.Module, scale_of: Callable[[AnalogState], float | None]) -> Iterator[None]:
    """For a block, a twin is in eval mode, and its matrices answer by fresh draws as in training, not by a chip.

    Args:
        analog: the twin; its modes are as before afterwards.
        scale_of: how much of a draw's error each matrix sees; None where its chip answers.
    """
    states = [matrix.analog for matrix in matrices_of(analog)]
    before = [state.answering for state in states]
    try:
        for state in states:
            scale = scale_of(state)
            state.answering = None if scale is None else Answering(scale)
        with in_eval(analog):
            yield
    finally:
        for state, answering in zip(states, before, strict=True):
            state.answering = answering


@contextmanager
def exactly(
    analog: nn.Module,
    *,
    converters: bool = False,
    adapters: bool = False,
    looks: Mapping[AnalogMatrix, Look] | None = None,
    laid: Mapping[AnalogMatrix, Tensor] | None = None,
) -> Iterator[None]:
    """For a block, a twin is in eval mode and answers without any error of devices and wires, whatever chip it has.

    By default that is its digital network, through the forwards of its own layers.

    Args:
        analog: the twin; its modes are as before afterwards.
        converters: let its converters act, their ranges and steps, without their noise and mismatch.
        adapters: let its adapters act.
        looks: what is shown the inputs of matrices.
        laid: for matrices, their weights in tensors by themselves, laid with their bias rows.
    """
    states = [(matrix, matrix.analog) for matrix in matrices_of(analog)]
    before = [(state, state.answering, state.crossbar, state.adapter) for _, state in states]
    looks, laid = looks or {}, laid or {}
    try:
        for matrix, state in states:
            state.answering = Answering(0.0, laid.get(matrix), looks.get(matrix))
            state.crossbar = state.crossbar if converters else IDEAL
            state.adapter = state.adapter if adapters else None
        with in_eval(analog):
            yield
    finally:
        for state, answering, crossbar, adapter in before:
            state.answering, state.crossbar, state.adapter = answering, crossbar, adapter


def chips_of(analog: nn.Module, action: str) -> list[tuple[AnalogMatrix, MatrixChip]]:
    """Every analog matrix with its chip, each checked against its weight.

    Args:
        analog: the twin.
        action: who asks, for the message.

    Raises:
        NotProgrammedError: a matrix has no chip.
        StaleChipError: its weight is no longer the one that was programmed.
    """
    pairs = []
    for matrix in matrices_of(analog):
        chip = matrix.analog.chip
        if chip is None:
            raise NotProgrammedError(
                f"{action}: layer {matrix.analog.name!r} has no chip; call analogsim.program(analog, seed=...) first"
            )
        chip.suspect()
        chip.check(*matrix.still())
        pairs.append((matrix, chip))
    return pairs
