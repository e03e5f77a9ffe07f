"""The proof that a network's answer comes from its crossbars: each one disturbed in turn."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from analogsim.chip.layer_chip import LayerChip, layer_chips
from analogsim.chip.lifecycle import programmed
from analogsim.conversion.digital import to_digital
from analogsim.conversion.first_forward import unwatched
from analogsim.crossbar.signal_path import Array
from analogsim.crossbar.stages import Stage
from analogsim.errors import InvalidTypeError, InvalidValueError, NonFiniteError, OperationError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import AnalogModule, matrices_of
from analogsim.layers.state import held_array
from analogsim.noise.sources import KeyedNoise, Noise, Silence
from analogsim.utils.modules import names_of, visited
from analogsim.utils.nonfinite import find_source
from analogsim.utils.tensors import holds_nonfinite
from analogsim.utils.text import table
from analogsim.utils.torch_private import TorchDispatchMode, own_buffers, own_parameters, uncompiled

CARRIES = "carries"
NEVER_CALLED = "never called"
DOES_NOT_MOVE = "called, output does not move"
NO_SAY = "no say in the output"
ALSO_DIGITAL = "carries, and is used digitally besides"

# Disturbances, relative to the root mean square of the weights. The second is for what the first does not move: coarse
# converters, outputs that are class numbers.
_STRENGTHS = (1.0, 10.0)

# On some accelerators two equal forwards differ by the order of their sums.
_REPEATABLE = 1e-3


_TOLD = {
    DOES_NOT_MOVE: "called without effect on it",
    ALSO_DIGITAL: "used digitally besides",
    NO_SAY: "without a say in it",
}


class AuditError(OperationError):
    """An analog layer does not carry the computation, or something else than the output moved.

    Cause: weights that are used past their crossbars, or layers that are never called.
    Cure: the table in `str(audit)` names them.
    """


@dataclass(frozen=True)
class AuditRow:
    """One analog layer.

    Args:
        name: in the network.
        kind: the digital type.
        calls: how often its crossbar was used in this forward.
        change: of the output while the crossbar holds other weights, relative to the output (Euclidean norms over all
            its tensors); infinite where the output takes another shape or turns NaN.
        verdict: ``"carries"``, ``"never called"``, ``"called, output does not move"``, though it does with the weight
            of the digital network; ``"no say in the output"``: the digital network does not depend on the weight either
            (a pooler whose answer is dropped); ``"carries, and is used digitally besides"``: what the Parameter holds
            moves the output past the crossbar.
        readers: what else computes with the layer's weight: operations, and the modules they are in.
    """

    name: str
    kind: str
    calls: int
    change: float
    verdict: str
    readers: tuple[str, ...] = ()

    @property
    def bypassed(self) -> bool:
        """Whether the layer is analog in name only: it is never called, and its weight is used all the same."""
        return self.verdict == NEVER_CALLED and bool(self.readers)

    @property
    def remark(self) -> str:
        """What the verdict means, in a sentence's words; empty where it says all."""
        by = ", ".join(self.readers)
        if self.bypassed:
            return f"analog in name only: its clean weight is used by {by}"
        if self.verdict == NEVER_CALLED:
            return "nothing uses its weight in this forward: a branch not taken, or a module without a part in eval"
        if self.verdict == NO_SAY:
            return "the answer of the digital network does not depend on it either: dropped, times zero or rounded away"
        if self.verdict == DOES_NOT_MOVE:
            return f"what it answers is dropped, and its clean weight is used by {by}"
        if self.verdict == ALSO_DIGITAL:
            return f"its clean weight is also used by {by}, and moves the output past the crossbar"
        return f"its clean weight is also used by {by}" if by else ""


@dataclass(frozen=True)
class Audit:
    """What became of the output while each crossbar in turn held other weights. ``str()`` is a table.

    Args:
        model: the network's class.
        rows: its analog layers.
        moved: what else moved meanwhile, and should not have.
    """

    model: str
    rows: tuple[AuditRow, ...]
    moved: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every layer with a part in this forward carries it, at least one does, and nothing else moved.

        A layer that is never called and whose weight nothing else uses (an auxiliary head in eval) has no part, and one
        that the output does not depend on in the digital network either has no say.
        """
        return not self.moved and not self._wrong and any(row.verdict == CARRIES for row in self.rows)

    @property
    def _wrong(self) -> list[AuditRow]:
        return [row for row in self.rows if row.bypassed or row.verdict in (DOES_NOT_MOVE, ALSO_DIGITAL)]

    @property
    def _conclusion(self) -> str:
        bypassed = [row.name for row in self.rows if row.bypassed]
        of = {verdict: [row.name for row in self.rows if row.verdict == verdict] for verdict in _TOLD}
        idle = [row.name for row in self.rows if row.verdict == NEVER_CALLED and not row.bypassed]
        carry = sum(row.verdict in (CARRIES, ALSO_DIGITAL) for row in self.rows)
        parts = [f"{carry} of {len(self.rows)} analog layers carry the output"]
        kinds = {
            "analog in name only": bypassed,
            **{what: of[verdict] for verdict, what in _TOLD.items()},
            "without a part in this forward": idle,
        }
        parts += [f"{what}: {_listed(names)}" for what, names in kinds.items() if names]
        parts.append(f"moved besides: {', '.join(self.moved)}" if self.moved else "nothing else moved")
        return "; ".join(parts)

    def check(self) -> None:
        """Raise AuditError, which names the layers, unless the audit passed."""
        if not self.passed:
            remarks = "".join(f"\n{_title(row.name)}: {row.remark}" for row in self._wrong)
            raise AuditError(f"audit of {self.model}: {self._conclusion}{remarks}")

    def __str__(self) -> str:
        head = ("layer", "type", "verdict", "calls", "change of the output")
        body = [
            (
                row.name or "(the model itself)",
                row.kind,
                row.verdict,
                str(row.calls),
                f"{row.change:.2g}" if row.calls else "",
            )
            for row in self.rows
        ]
        remarks = [f"{_title(row.name)}: {row.remark}" for row in self.rows if row.remark]
        last = f"{self.model}: {'passed' if self.passed else 'NOT passed'}: {self._conclusion}."
        return "\n".join([table(head, body, right=3), *remarks, last])


def _title(name: str) -> str:
    return repr(name) if name else "(the model itself)"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(_title, names[:5])) + more


class _StandIn:
    """Takes a chip's place in a layer: the same weights without white noise, or other ones. Counts its uses."""

    use_noise: Noise = Silence()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """As of the chip."""
        return self._chip.stages

    @property
    def time(self) -> float:
        """As of the chip."""
        return self._chip.time

    def __init__(self, matrix: AnalogMatrix, chip: LayerChip) -> None:
        self.name = chip.name
        self._chip = chip
        held = matrix.still()
        self._own = self._weight = chip.weight_for(*held)[0]
        array = chip.array_for(*held) if matrix.analog.crossbar.converts else None
        self._own_array = self._array = None if array is None else replace(array, variances=None)
        self.calls = 0

    def weight_for(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As of the chip."""
        self.calls += 1
        return self._weight, None

    def array_for(self, weight: Tensor, bias: Tensor | None = None) -> Array:
        """As of the chip."""
        self.calls += 1
        return held_array(self._array)

    def check(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """As of the chip."""
        self._chip.check(weight, bias)

    def suspect(self) -> None:
        """As of the chip."""
        self._chip.suspect()

    def describe(self) -> str:
        """As of the chip."""
        return self._chip.describe()

    @contextmanager
    def disturbed(self, strength: float) -> Iterator[None]:
        """Other weights for a block: normal errors, of a standard deviation relative to the weights' size."""
        noise = KeyedNoise("audit", self._chip.name)

        def other(held: Tensor) -> Tensor:
            wide = held.float() if held.dtype.itemsize < 4 else held
            std = strength * (float(wide.square().mean().sqrt()) or 1.0)
            return (wide + noise.normal_like(wide, std)).to(held.dtype)

        try:
            self._weight = other(self._own)
            if self._own_array is not None:
                self._array = replace(self._own_array, slices=other(self._own_array.slices))
            yield
        finally:
            self._weight, self._array = self._own, self._own_array


def _ignore(kind: str, values: Tensor, place: int, block: int | None) -> None:
    """Watches a layer that has no ranges yet, which then sets them for each vector."""


@contextmanager
def _stand_ins(analog: nn.Module, matrices: list[AnalogMatrix]) -> Iterator[list[_StandIn]]:
    """A stand-in for each layer's chip, in eval mode; without a chip, for one that is programmed for this block."""
    states = [matrix.analog for matrix in matrices]
    modes = [(module, module.training) for module in analog.modules()]
    observers = [(state, state.observe) for state in states]
    with ExitStack() as stack:
        if any(state.chip is None for state in states):
            stack.enter_context(programmed(analog))
        pairs = layer_chips(analog, "audit")
        analog.eval()
        try:
            stand_ins = [_StandIn(matrix, chip) for matrix, chip in pairs]
            for state, stand_in in zip(states, stand_ins, strict=True):
                state.chip = stand_in
                if state.input_range is None and state.output_bound is None:
                    state.observe = _ignore
            yield stand_ins
        finally:
            for state, (_, chip) in zip(states, pairs, strict=True):
                state.chip = chip
                chip.suspect()
            for state, observe in observers:
                state.observe = observe
            for module, mode in modes:
                module.training = mode


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape and type hold the same bits."""
    if one.is_complex():
        one, other = torch.view_as_real(one), torch.view_as_real(other)
    return torch.equal(one.contiguous().reshape(-1).view(torch.uint8), other.contiguous().reshape(-1).view(torch.uint8))


class _Snapshot:
    """Everything of a network that a forward in eval leaves as it is."""

    def __init__(self, analog: nn.Module, matrices: list[AnalogMatrix]) -> None:
        self._tensors: list[tuple[str, dict[str, Tensor | None], str, Tensor, Tensor]] = []
        copies: dict[int, Tensor] = {}
        for module, (path, *_) in names_of(analog).items():
            held = (("parameter", own_parameters(module)), ("buffer", own_buffers(module)))
            for kind, tensors in cast("tuple[tuple[str, dict[str, Tensor | None]], ...]", held):
                for key, tensor in tensors.items():
                    if tensor is not None:
                        saved = copies.setdefault(id(tensor), tensor.detach().clone())
                        name = f"{kind} {path}.{key}" if path else f"{kind} {key}"
                        self._tensors.append((name, tensors, key, tensor, saved))
        self._modes = [(f"mode of {names[0]}", module, module.training) for module, names in names_of(analog).items()]
        self._states = [
            (f"{field} of {matrix.analog.title}", matrix.analog, field, getattr(matrix.analog, field))
            for matrix in matrices
            for field in ("chip", "input_range", "output_bound", "noise_scale", "compiled_scale")
        ]
        self._random = torch.get_rng_state()

    @torch.no_grad()
    def put_back(self) -> list[str]:
        """What is no longer as it was, after it has been put back."""
        moved = []
        for name, tensors, key, tensor, saved in self._tensors:
            there = tensors.get(key)
            if there is not tensor:
                tensors[key] = tensor
            intact = _same(tensor.detach(), saved)
            if not intact:
                tensor.copy_(saved)
            if there is not tensor or not intact:
                moved.append(name)
        for name, module, mode in self._modes:
            if module.training is not mode:
                module.training = mode
                moved.append(name)
        for name, state, field, value in self._states:
            if getattr(state, field) is not value:
                setattr(state, field, value)
                moved.append(name)
        if not torch.equal(self._random, torch.get_rng_state()):
            torch.set_rng_state(self._random)
            moved.append("torch's random state")
        return moved


def _storage(tensor: Tensor) -> tuple[torch.device, int] | None:
    if tensor.is_nested or tensor.layout is not torch.strided:
        return None
    return tensor.device, tensor.untyped_storage().data_ptr()


class _Readers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Who computes with the clean weights: operations by the memory they read, and the module they run in.

    Below autograd and torch's overrides, so that fused kernels, which switch themselves off above, show up.
    """

    def __init__(self, analog: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {module: names[0] for module, names in names_of(analog).items()}
        self._inside: list[str] = []
        self.found: dict[tuple[torch.device, int], dict[tuple[str, str], None]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            for leaf in _leaves((args, kwargs or {})):
                key = _storage(leaf) if isinstance(leaf, Tensor) else None
                if key is not None:
                    inside = self._inside[-1] if self._inside else ""
                    self.found.setdefault(key, {})[inside, str(func.overloadpacket)] = None
        return func(*args, **(kwargs or {}))

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Note what happens in a block."""

        def enter(module: nn.Module) -> None:
            self._inside.append(self._names.get(module, type(module).__name__))

        def leave(module: nn.Module) -> None:
            self._inside.pop()

        with visited(enter, leave), self:
            yield

    def of(self, matrix: AnalogMatrix, module: nn.Module) -> list[tuple[str, str]]:
        """The operations that read the weight of a matrix in a module, each with the module that it is in."""
        keys = {_storage(parameter) for parameter in module.parameters() if parameter.ndim > 1}
        key = _storage(matrix.still()[0])
        if key in keys:  # else it is computed, of any of them
            keys = {key}
        return [(inside, operation) for key in keys if key is not None for inside, operation in self.found.get(key, {})]

    def outside(self, found: list[tuple[str, str]], module: nn.Module) -> list[tuple[str, str]]:
        """Those of the readers that are not in a module."""
        own = self._names[module]
        return [reader for reader in found if reader[0] != own and not reader[0].startswith(f"{own}.")]


def _leaves(value: Any) -> Iterator[Tensor | complex]:
    """The tensors and numbers in arguments or an output of any structure."""
    if isinstance(value, Tensor | bool | int | float | complex):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _leaves(getattr(value, field.name, None))


def _tensors(value: Any) -> Iterator[Tensor]:
    """All leaves as ordinary tensors."""
    for leaf in _leaves(value):
        if not isinstance(leaf, Tensor):
            yield torch.tensor(leaf)
        elif leaf.is_nested:
            yield from leaf.unbind()
        else:
            yield leaf if leaf.layout is torch.strided else leaf.to_dense()


def _change(before: list[Tensor], after: list[Tensor]) -> float:
    """Euclidean norm of what differs between two outputs, relative to the first; infinite for other shapes."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return math.inf
    difference = size = 0.0
    for old, new in zip(before, after, strict=True):
        kind = torch.complex128 if old.is_complex() or new.is_complex() else torch.float64
        one, other = old.cpu().to(kind), new.cpu().to(kind)
        same = (one == other) | (one.isnan() & other.isnan())
        apart = torch.where(same, torch.zeros((), dtype=kind), one - other).abs()
        difference += float(apart.square().sum())
        size += float(one.abs().nan_to_num(0.0, 0.0).square().sum())
    if difference == 0:
        return 0.0
    return math.sqrt(difference / size) if size and math.isfinite(difference) else math.inf


def _fresh(value: Any) -> Any:
    """Arguments of their own for one forward, which may write into them."""
    memo: dict[int, Any] = {id(leaf): leaf.detach().clone() for leaf in _leaves(value) if isinstance(leaf, Tensor)}
    return copy.deepcopy(value, memo)


def _runner(args: tuple[Any, ...], kwargs: dict[str, Any], devices: set[torch.device]) -> Callable[..., list[Tensor]]:
    """A function that gives a model's answer as tensors, every time from the same random state."""
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    kind = accelerators[0].type if accelerators else "cuda"
    numbers = [device.index or 0 for device in accelerators]

    def run(model: nn.Module) -> list[Tensor]:
        inputs, named = _fresh((args, kwargs))
        with (
            torch.no_grad(),
            torch.random.fork_rng(numbers, device_type=kind),
            torch.compiler.set_stance("force_eager"),
        ):
            return [tensor.detach().clone() for tensor in _tensors(model(*inputs, **named))]

    return run


def audit(analog: nn.Module, *args: Any, **kwargs: Any) -> Audit:
    """Show that each analog layer carries its part of the computation.

    Each crossbar in turn holds other weights for one forward in eval mode: the output has to move, and nothing else may
    (Parameters, buffers, modes, chips, ranges, random state, the answer of the digital network). With its own weights
    again the network has to answer as before. White noise is silent meanwhile. Everything is left as it was.

    The first forward also notes who else computes with the weights: a layer that is never called though another module
    uses its weight is analog in name only. One whose weight nothing uses has no part in this forward.

    A layer whose weight is read besides is tried once more, with another Parameter and its crossbar as it is: if that
    moves the output, part of the layer runs digital, but for modules that hold the same Parameter and are digital (a
    tied table). One that does not move the output is tried in the digital network, to tell whether it has a say there.

    It takes one forward for each layer and four more, and memory for two more copies of the weights. The first use in a
    process also waits some seconds for a part of torch to load.

    Args:
        analog: the twin from `convert`. Without a chip, it is tried on one that is programmed for the purpose.
        *args: an example input. Any output is fine that holds tensors: alone, or in tuples, lists, dictionaries and
            dataclasses.
        **kwargs: its arguments by name.

    Returns:
        A row for each layer; `Audit.check` raises an error unless it passed.

    Raises:
        TypeError: the output holds no tensor.
        ValueError: ``analog`` has no analog layer, or the network answers differently to the same input.
        NonFiniteError: the answer holds NaN or infinite values, which a layer makes, or which hide what one does.
        StaleChipError: the weights changed since the chip was programmed.

    Example:
        >>> import torch, analogsim
        >>> from analogsim import audit
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> audit(analogsim.convert(model, device="pcm"), torch.ones(1, 4)).passed
        True
    """
    analog = uncompiled(analog)
    matrices = matrices_of(analog)
    run = _runner(args, kwargs, {tensor.device for tensor in (*analog.parameters(), *analog.buffers())})
    digital = to_digital(analog).eval()
    with unwatched(analog), _stand_ins(analog, matrices) as stand_ins, ExitStack() as disturbances:
        snapshot, readers = _Snapshot(analog, matrices), _Readers(analog)
        with readers.follow():
            first = run(analog)
        _check_holds(analog, first)
        calls = [stand_in.calls for stand_in in stand_ins]
        written = set(snapshot.put_back())  # by the undisturbed forward itself
        clean = run(digital)
        written |= set(snapshot.put_back())
        moved: dict[str, None] = {}

        def disturb(stand_in: _StandIn, strength: float) -> float:
            with stand_in.disturbed(strength):
                change = _change(first, run(analog))
                moved.update(dict.fromkeys(snapshot.put_back()))
            return change

        changes = [
            _first_change(disturb, stand_in) if uses else 0.0 for stand_in, uses in zip(stand_ins, calls, strict=True)
        ]
        _check_finite(analog, first, (args, kwargs), run, zip(calls, changes, strict=True))
        again = _change(first, run(analog))
        tell = _Judge(analog, digital, run, first, clean, 10 * again)
        if not again <= _REPEATABLE:
            raise InvalidValueError(
                f"audit: {type(analog).__name__} answers differently to the same input from the same random state (by "
                f"{again:.2g} of the output); take out what is random besides torch's generators"
            )
        rows = []
        owners = _owners(analog)
        for matrix, uses, change in zip(matrices, calls, changes, strict=True):
            rows.append(_row(matrix, owners[id(matrix)], uses, change, readers, tell))
            moved.update(dict.fromkeys(snapshot.put_back()))
        for stand_in in stand_ins:
            disturbances.enter_context(stand_in.disturbed(1.0))
        if _change(clean, run(digital)) > 10 * again:
            moved["the answer of the digital network"] = None
        moved |= dict.fromkeys(snapshot.put_back())
    return Audit(type(analog).__name__, tuple(rows), tuple(name for name in moved if name not in written))


def _check_holds(analog: nn.Module, answer: list[Tensor]) -> None:
    """Raise TypeError where an answer holds no tensor."""
    if not answer:
        raise InvalidTypeError(
            f"audit: the output of {type(analog).__name__} holds no tensor; give a model that returns one"
        )


def _check_finite(
    analog: nn.Module,
    answer: list[Tensor],
    inputs: Any,
    run: Callable[[nn.Module], object],
    found: Iterable[tuple[int, float]],
) -> None:
    """Raise NonFiniteError where NaN or infinite values hide what a layer does.

    Args:
        analog: the network.
        answer: its own.
        inputs: what it was given.
        run: makes a forward.
        found: how often each layer is called, and what it changes of the answer.
    """
    if holds_nonfinite(answer, masks=True):
        source = find_source(analog, inputs, lambda: run(analog))
        still = any(calls and not change for calls, change in found)
        if still or source.layer or source.inputs:
            raise NonFiniteError(f"audit: the answer of {type(analog).__name__} holds NaN or infinite values: {source}")


def _row(
    matrix: AnalogMatrix, module: AnalogModule, uses: int, change: float, readers: _Readers, tell: _Judge
) -> AuditRow:
    """The row of a matrix that was used so often, and whose other weights change the output by so much."""
    found = readers.of(matrix, module)
    outside = readers.outside(found, module)
    # A table's row for padding is digital by design.
    verdict = tell(matrix, outside if module.stored else found, uses, change)
    if uses and verdict != ALSO_DIGITAL:
        found = outside
    told = tuple(dict.fromkeys(f"{operation} in {_title(inside)}" for inside, operation in found))
    return AuditRow(matrix.analog.name, module.stands_for.__name__, uses, change, verdict, told)


def _owners(analog: nn.Module) -> dict[int, AnalogModule]:
    """The module that each matrix is of, by the matrix's id."""
    return {
        id(matrix): module
        for module in analog.modules()
        if isinstance(module, AnalogModule)
        for matrix in module.matrices.values()
    }


def _first_change(disturb: Callable[[_StandIn, float], float], stand_in: _StandIn) -> float:
    """The change by the weakest disturbance that makes any; zero if none does."""
    for strength in _STRENGTHS:
        change = disturb(stand_in, strength)
        if change != 0:
            return change
    return 0.0


@dataclass(frozen=True)
class _Judge:
    """Gives the verdict on a layer.

    Args:
        analog: the twin, with a stand-in for each chip.
        digital: its digital network.
        run: gives a model's answer.
        first: the answer of the twin.
        clean: that of the digital network.
        least: the change that counts as one.
    """

    analog: nn.Module
    digital: nn.Module
    run: Callable[[nn.Module], list[Tensor]]
    first: list[Tensor]
    clean: list[Tensor]
    least: float

    def __call__(self, matrix: AnalogMatrix, readers: list[tuple[str, str]], uses: int, change: float) -> str:
        """The verdict on a layer that was used so often, whose other weights change the output by so much."""
        if not uses:
            return NEVER_CALLED
        if not change > self.least:
            return DOES_NOT_MOVE if self._moved(self.digital, self.clean, matrix) else NO_SAY
        if all(self._is_meant(inside, matrix) for inside, _ in readers):
            return CARRIES
        return ALSO_DIGITAL if self._moved(self.analog, self.first, matrix) else CARRIES

    def _moved(self, model: nn.Module, before: list[Tensor], matrix: AnalogMatrix) -> bool:
        """Whether other values in the Parameters of a matrix move the answer of a network."""
        for strength in _STRENGTHS:
            with _other_values(matrix, strength):
                if _change(before, self.run(model)) > self.least:
                    return True
        return False

    def _is_meant(self, inside: str, matrix: AnalogMatrix) -> bool:
        """Whether a module is a digital one that holds the Parameter itself."""
        module = dict(self.analog.named_modules()).get(inside, self.analog)
        held = set(map(id, module.parameters(recurse=False)))
        return not isinstance(module, AnalogModule) and any(
            id(parameter) in held for parameter in matrix.analog.slot.parameters(matrix.holder)
        )


@contextmanager
def _other_values(matrix: AnalogMatrix, strength: float) -> Iterator[None]:
    """Other values in the Parameters that a matrix lies in, or is computed from, for a block.

    They are written without torch's knowledge, so that no graph and no chip takes the weights for changed.
    """
    slot = replace(matrix.analog.slot, bias=None)
    parts = slot.parameters(matrix.holder) if matrix.computed else [slot.weight_of(matrix.holder)]
    values = [part.data for part in parts]
    kept = [value.clone() for value in values]
    noise = KeyedNoise("audit", matrix.analog.name)
    try:
        for value in values:
            wide = value.float() if value.dtype.itemsize < 4 else value
            std = strength * (float(wide.square().mean().sqrt()) or 1.0)
            value.copy_(wide + noise.normal_like(wide, std))
        yield
    finally:
        for value, before in zip(values, kept, strict=True):
            value.copy_(before)
