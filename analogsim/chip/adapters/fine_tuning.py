"""Training of adapters while the analog weights stay: on one chip, or for all; with labels, or by a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.chip.adapters.attached import Adapters, adapters_as_they_are, adapters_of, add_adapters
from analogsim.chip.clean import as_trained
from analogsim.chip.layer_chip import LayerChip, layer_chips
from analogsim.crossbar.stages import Outputs, Plain
from analogsim.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import drawn_in_eval, matrices_of
from analogsim.layers.state import AnalogState, Uses
from analogsim.utils.batches import Inputs, answer, call, inputs_of, moved, read_once, refuse_empty, samples_in, split
from analogsim.utils.checks import MOST_TURNS, as_number, check_seed, check_whole
from analogsim.utils.modules import in_eval
from analogsim.utils.tensors import holds_nonfinite
from analogsim.utils.text import in_short, table
from analogsim.utils.times import label
from analogsim.utils.torch_private import tree_leaves

Loss = Callable[[Any, Any], Tensor]
"""Of what the network answers and of a target: labels, or what the teacher answers."""

# Each age of several has so many turns.
_TURNS = 10


@dataclass(frozen=True)
class FineTuning:
    """What `fine_tune` has done.

    Args:
        on: the chip and its ages, or fresh draws of the device.
        samples: that were used.
        losses: of each step.
        adapters: what was trained, and what it takes of the digital part.
    """

    on: str
    samples: int
    losses: tuple[float, ...]
    adapters: Adapters

    @property
    def before(self) -> float:
        """The mean loss of the first tenth of the steps."""
        return self._mean(self.losses[: self._tenth])

    @property
    def after(self) -> float:
        """The mean loss of the last tenth of the steps."""
        return self._mean(self.losses[-self._tenth :])

    @property
    def _tenth(self) -> int:
        return max(1, len(self.losses) // 10)

    @staticmethod
    def _mean(losses: tuple[float, ...]) -> float:
        return sum(losses) / len(losses)

    def __str__(self) -> str:
        rows = [
            (
                self.on,
                str(self.samples),
                str(len(self.losses)),
                f"{self.before:.4g}",
                f"{self.after:.4g}",
                f"{self.adapters.numbers:,}",
            )
        ]
        return table(("on", "samples", "steps", "loss before", "after", "numbers trained"), rows)


_HOTTEST = 1e18  # its square is a float, and everything is the same to it
_AXES = 64  # that a tensor of torch's may have


def distillation_loss(output: Any, target: Any, *, temperature: float | None = None, axis: int = -1) -> Tensor:
    r"""How far a network's answer is from its teacher's.

    Without a temperature the mean squared error, in units of the variance of what the teacher answers; for anything
    that is answered. With one the cross entropy of classes,
    :math:`T^2\, \mathrm{KL}(\mathrm{softmax}(z^* / T) \,\|\, \mathrm{softmax}(z / T))`, for classifiers.

    Args:
        output: what the network answers: a tensor, or any structure of them, over which the mean is taken.
        target: what the teacher answers, likewise.
        temperature: of both; None for the squared error.
        axis: which holds the classes: -1, or 1 for pictures ``(batch, classes, height, width)``.

    Raises:
        TypeError: there is no floating tensor in what is answered.
        ValueError: a temperature that is not above 0, or answers of different shapes.

    Source: Hinton, Vinyals, Dean, arXiv:1503.02531 (2015).

    Example:
        >>> import torch, analogsim
        >>> float(analogsim.distillation_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]])))
        2.0
    """
    if temperature is not None and not 0 < as_number(temperature) < _HOTTEST:
        raise InvalidValueError(f"distillation_loss: temperature must be finite and > 0, got {in_short(temperature)}")
    check_whole(axis, "distillation_loss: axis", -_AXES, _AXES)
    found, wanted = _numbers_in(output), _numbers_in(target)
    if not found or [leaf.shape for leaf in found] != [leaf.shape for leaf in wanted]:
        shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in (found, wanted)]
        if not found and not wanted:
            raise InvalidTypeError(f"distillation_loss: no numbers to compare in a {type(output).__name__}")
        raise InvalidValueError(f"distillation_loss: the network answers {shapes[0]}, and its teacher {shapes[1]}")
    each = [_distance(one, other.detach(), temperature, axis) for one, other in zip(found, wanted, strict=True)]
    return torch.stack(each).mean()


def _numbers_in(value: Any) -> list[Tensor]:
    """The floating tensors in what is answered."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _distance(output: Tensor, target: Tensor, temperature: float | None, axis: int) -> Tensor:
    output, target = output if output.dtype is torch.float64 else output.float(), target.to(output.device)
    target = target.to(output.dtype)
    if temperature is None:
        spread = target.var(correction=0) if target.numel() > 1 else target.square().mean()
        return (output - target).square().mean() / spread.clamp(min=torch.finfo(spread.dtype).tiny)
    told, wanted = ((each / temperature).log_softmax(axis) for each in (output, target))
    return (wanted.exp() * (wanted - told)).sum(axis).mean() * temperature**2


def fine_tune(
    analog: nn.Module,
    data: Tensor | Mapping[str, Any] | Iterable[Any],
    *,
    rank: int | Mapping[str, int | None] | None = None,
    steps: int = 200,
    lr: float = 0.01,
    teacher: nn.Module | Literal["digital"] | None = "digital",
    loss: Loss | None = None,
    seed: int = 0,
) -> FineTuning:
    """Train the adapters of a twin, and nothing else, so that it answers as its digital network does, or as labels say.

    With a chip under the twin, data go through that chip, at its age: the chip is in the loop, and the adapters are for
    it. Without one each step sees a fresh draw of the device, at the noise scale that is set: the adapters are for all
    chips. Adapters with vectors for several ages are trained at these, in turns. The network is in eval mode meanwhile
    (batch norm keeps its statistics, dropout does nothing), its weights and ranges stay, and so does the chip.

    Adam takes the steps, at a rate that falls to 0 by a cosine; offsets and the two matrices move in units of the
    spread of their outputs and of the weights. Of a few hundred labels that the network was trained on they learn to be
    surer of these, and end worse than by the teacher; docs/robust.md has what each way brings.

    Args:
        analog: the twin, with adapters or without.
        data: inputs, a batch (a tensor or a mapping of keyword arguments) or a loader of such; labels are left out.
            With ``teacher=None`` a loader of batches as `evaluate` takes them, (inputs, target). Each step takes the
            next batch.
        rank: of the adapters that are put on; see `add_adapters`. None: those that are there, or else of rank 0.
        steps: how many.
        lr: of Adam, at first.
        teacher: ``"digital"``: the twin's own digital network, or what converters leave of it where a crossbar learns
            its ranges, since that was trained; another network that answers the same inputs; None: the targets of the
            data.
        loss: of (answer, target) or (answer, the teacher's answer). Default: with a teacher `distillation_loss`; else
            cross entropy where targets are whole numbers, and the mean squared error where they are not.
        seed: of what is drawn: the adapters, and the device without a chip. Torch's own random state stays.

    Returns:
        Losses, and what was trained.

    Raises:
        NotProgrammedError, StaleChipError: some matrices have no chip, or the weights changed since.
        BypassedError: no analog layer had a part in the answers.
        NonFiniteError: the loss is NaN or infinite.
        TypeError: a batch, a teacher or a loss of another kind.
        ValueError: no data, data that are NaN or infinite, steps or a rate that are none; a rank where there are
            adapters already. Whatever is raised, the twin is as before then.

    Example:
        >>> import torch, analogsim
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> analog = analogsim.convert(model, device="pcm").eval()
        >>> analogsim.program(analog, seed=1)
        >>> analogsim.drift(analog, "1y")
        >>> done = analogsim.fine_tune(analog, torch.randn(64, 8), steps=50)
        >>> done.after < done.before
        True
    """
    _check(steps, lr, teacher, loss)
    check_seed(seed, "fine_tune: seed")
    restore = adapters_as_they_are(analog)
    matrices = matrices_of(analog)
    places = {matrix.torch_device for matrix in matrices}
    try:
        with torch.inference_mode(False), torch.enable_grad(), _forked(places, seed):
            if rank is not None or all(matrix.analog.adapter is None for matrix in matrices):
                add_adapters(analog, 0 if rank is None else rank)
            with _frozen(analog), _regime(analog) as regime:
                lesson = _Lesson(analog, data, teacher, loss)
                losses = _train(regime, lesson, steps, lr)
    except BaseException:
        restore()
        raise
    for matrix in matrices:
        if matrix.analog.adapter is not None:
            matrix.analog.adapter.seed = regime.seed
    lesson.uses.warn("fine_tune", stacklevel=2)
    return FineTuning(regime.title, lesson.samples, losses, adapters_of(analog))


def _check(steps: int, lr: float, teacher: object, loss: object) -> None:
    check_whole(steps, "fine_tune: steps", 1, MOST_TURNS)
    if not 0 < as_number(lr) < math.inf:
        raise InvalidValueError(f"fine_tune: lr must be finite and > 0, got {in_short(lr)}")
    if not (teacher is None or teacher == "digital" or isinstance(teacher, nn.Module)):
        raise InvalidTypeError(f'fine_tune: teacher must be "digital", a network or None for labels, got {teacher!r}')
    if loss is not None and not callable(loss):
        raise InvalidTypeError(f"fine_tune: loss must be a function of (answer, target), got {in_short(loss)}")


@contextmanager
def _forked(places: Iterable[torch.device], seed: int) -> Iterator[None]:
    """Torch's generators begin with a seed, and are as before afterwards."""
    with torch.random.fork_rng([place.index or 0 for place in places if place.type == "cuda"]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _frozen(analog: nn.Module) -> Iterator[None]:
    """No gradient comes to Parameters and ranges."""
    ranges = [matrix.analog.input_range for matrix in matrices_of(analog)]
    tensors = [*analog.parameters(), *(each for each in ranges if each is not None)]
    wanted = [(tensor, tensor.requires_grad) for tensor in tensors]
    try:
        for tensor, _ in wanted:
            tensor.requires_grad_(False)
        yield
    finally:
        for tensor, wants in wanted:
            tensor.requires_grad_(wants)


class _Regime:
    """What adapters are trained on: a chip, or fresh draws; at one age or at several.

    Args:
        states: of the matrices.
        chips: of the same; empty for fresh draws.
    """

    def __init__(self, states: list[AnalogState], chips: list[LayerChip]) -> None:
        self._states = states
        self._chips = chips
        self.ages = next((state.adapter.ages for state in states if state.adapter is not None), ())
        self.adapted = [(state, state.adapter) for state in states if state.adapter is not None]
        self.seed = chips[0].seed if chips else None

    @property
    def title(self) -> str:
        """What it is, in words."""
        if not self._chips:
            return "fresh draws" + (f" at {self._told}" if self.ages else "")
        return f"chip {self.seed} at {self._told if self.ages else label(self._chips[0].time)}"

    @property
    def _told(self) -> str:
        return ", ".join(map(label, self.ages))

    def turn(self, step: int, steps: int) -> None:
        """Be of the age whose turn a step is."""
        if not self.ages:
            return
        length = max(1, steps // (_TURNS * len(self.ages)))
        if step % length == 0:
            age = self.ages[step // length % len(self.ages)]
            for state in self._states:
                state.train_times = (age, age)
            for state, chip in zip(self._states, self._chips, strict=bool(self._chips)):
                chip.set_time(age, chip.compensation, state.known_bound)


@contextmanager
def _regime(analog: nn.Module) -> Iterator[_Regime]:
    """A twin in eval mode, on its chip or on fresh draws; modes, ages and train times are as before afterwards."""
    matrices = matrices_of(analog)
    states = [matrix.analog for matrix in matrices]
    chips = [chip for _, chip in layer_chips(analog, "fine_tune")] if any(s.chip is not None for s in states) else []
    times = [(state, state.train_times) for state in states]
    ages = [(state, chip, chip.time) for state, chip in zip(states, chips, strict=bool(chips))]
    with drawn_in_eval(analog, lambda state: None if chips else state.noise_scale):
        regime = _Regime(states, chips)
        try:
            yield regime
        finally:
            for state, before in times:
                state.train_times = before
            for state, chip, time in ages if regime.ages else ():
                chip.set_time(time, chip.compensation, state.known_bound)


class _Lesson:
    """The batches with what is to be answered.

    Args:
        analog: the twin, in eval mode.
        data: see `fine_tune`.
        teacher: see there.
        loss: see there.

    Attributes:
        network: the twin.
        samples: in all batches.
        uses: of its matrices since.
    """

    def __init__(self, analog: nn.Module, data: Any, teacher: nn.Module | str | None, loss: Loss | None) -> None:
        whole = isinstance(data, Tensor | Mapping) and teacher is not None
        refuse_empty(data)
        if not whole and not isinstance(data, Iterable):
            raise InvalidTypeError(
                "fine_tune: data must be a tensor, a mapping of arguments or a loader of batches, got "
                f"{type(data).__name__}"
            )
        self.network = analog
        self._place = matrices_of(analog)[0].torch_device
        self._kept: Iterable[Any] = [data] if whole else read_once(data)
        if isinstance(self._kept, Iterator):
            raise InvalidValueError("fine_tune: data can be read only once; give a DataLoader or a list of batches")
        self._teacher = teacher
        self._loss = loss or (_of_labels if teacher is None else distillation_loss)
        self.uses = Uses([matrix.analog for matrix in matrices_of(analog)])
        # What a teacher answers to data that are kept is asked once.
        self._known: list[tuple[Inputs, Any]] | None = [] if isinstance(self._kept, list) else None
        self.samples = 0
        for inputs, target in self._read():
            self.samples += samples_in(inputs, None if self._teacher is not None else target)
            if self._known is not None:
                self._known.append((inputs, target))

    def _read(self) -> Iterator[tuple[Inputs, Any]]:
        pairs: Iterable[tuple[Inputs, Any]]
        if self._teacher is None:
            pairs = (split(batch) for batch in self._kept)
        else:
            pairs = ((inputs, None) for inputs in inputs_of(self._kept, "fine_tune"))
        empty = True
        for number, (inputs, target) in enumerate(pairs):
            empty = False
            if holds_nonfinite(inputs, masks=True):
                raise InvalidValueError(f"fine_tune: batch {number} of the data holds NaN or infinite values")
            placed = moved(inputs, self._place)
            yield placed, moved(target, self._place) if self._teacher is None else self._taught(placed)
        if empty:
            raise InvalidValueError("fine_tune: the data are empty; give at least one batch")

    @torch.no_grad()
    def _taught(self, inputs: Inputs) -> Any:
        """What the teacher answers."""
        if isinstance(self._teacher, nn.Module):
            with in_eval(self._teacher):
                return answer(call(self._teacher, inputs))
        with as_trained(self.network):
            return answer(call(self.network, inputs))

    @property
    def first(self) -> Inputs:
        """The inputs of the first batch."""
        return next(self.batches())[0]

    def batches(self) -> Iterator[tuple[Inputs, Any]]:
        """Inputs and targets, without end."""
        while True:
            yield from self._known if self._known is not None else self._read()

    def loss(self, inputs: Inputs, target: Any) -> Tensor:
        """Of one batch."""
        found = self._loss(answer(call(self.network, inputs)), target)
        if not isinstance(found, Tensor) or found.ndim:
            raise InvalidTypeError(f"fine_tune: loss must give a tensor with one number, got {found!r}")
        return found


def _of_labels(output: Any, target: Any) -> Tensor:
    """Cross entropy of classes, the squared error of numbers."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        raise InvalidTypeError(
            f"fine_tune: no loss is known for an answer of {type(output).__name__} and a target of "
            f"{type(target).__name__}; give loss=a function of (output, target)"
        )
    if target.is_floating_point():
        return functional.mse_loss(output, target.to(output.dtype))
    return functional.cross_entropy(output, target.long())


class _Spread:
    """A digital stage that measures the standard deviation of the outputs of a matrix.

    Attributes:
        found: of the last product; None before.
    """

    def __init__(self) -> None:
        self.found: Tensor | None = None

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        """See `Stage.after`."""
        if product.numel() > 1:
            self.found = product.detach().float().std()
        return product

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
        """See `Stage.folded`: it has to see the products."""
        return None


@torch.no_grad()
def _spreads(analog: nn.Module, inputs: Inputs) -> dict[str, float]:
    """The standard deviation of what each matrix answers to a batch; of one without a part none."""
    states = [matrix.analog for matrix in matrices_of(analog)]
    before = [state.stages for state in states]
    probes = [_Spread() for _ in states]
    try:
        for state, probe in zip(states, probes, strict=True):
            state.stages = (probe, *state.stages)
        call(analog, inputs)
    finally:
        for state, stages in zip(states, before, strict=True):
            state.stages = stages
    return {
        state.name: float(probe.found)
        for state, probe in zip(states, probes, strict=True)
        if probe.found is not None and probe.found > 0
    }


def _groups(matrices: list[AnalogMatrix], spreads: Mapping[str, float], lr: float) -> list[dict[str, Any]]:
    """The tensors of adapters for an optimizer, each at a rate in its own unit."""
    groups = []
    for matrix in matrices:
        adapter = matrix.analog.adapter
        if adapter is None:
            continue
        weight = matrix.still()[0]
        units = {"offset": spreads.get(matrix.analog.name, 1.0), "down": float(weight.float().square().mean().sqrt())}
        groups += [
            {"params": [value], "lr": lr * units.get(name, 1.0), "first": lr * units.get(name, 1.0)}
            for name, value in adapter.tensors.items()
        ]
    return groups


def _train(regime: _Regime, lesson: _Lesson, steps: int, lr: float) -> tuple[float, ...]:
    """The losses of the steps."""
    analog, batches = lesson.network, lesson.batches()
    regime.turn(0, steps)
    optimizer = torch.optim.Adam(_groups(matrices_of(analog), _spreads(analog, lesson.first), lr))
    lesson.uses.check("fine_tune")
    losses = []
    for step in range(steps):
        regime.turn(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["first"] * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        loss = lesson.loss(*next(batches))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    optimizer.zero_grad()
    found = torch.stack(losses)
    if not found.isfinite().all():
        step = int((~found.isfinite()).nonzero()[0])
        raise NonFiniteError(
            f"fine_tune: the loss is {float(found[step])} in step {step} of {steps}, and the adapters are as before; "
            "take a smaller lr, and look at what the network answers"
        )
    return tuple(found.tolist())
