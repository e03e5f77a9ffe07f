"""Schedules: how much of the device's errors training sees, and how far weights may go, step by step."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, get_args

from torch import nn

from analogsim.errors import InvalidValueError
from analogsim.layers.module import matrices_of
from analogsim.training.clipping import Per, clip_weights
from analogsim.training.settings import LARGEST_SCALE, set_noise_scale
from analogsim.utils.checks import as_number, check_whole
from analogsim.utils.text import in_short

Factor = Callable[[float], float]
"""How far a schedule is from its start to its end, for the progress in [0, 1]."""

_Scale = Callable[[float, float, float, int], float]  # of start, end, progress and stairs
_REAL = ("start", "end", "jitter")  # settings that are no whole numbers


def _rises(progress: float, stairs: int) -> int:
    """The stairs begun by a progress, ``ceil(progress * stairs)``, as if the progress were not rounded."""
    # A product that is a whole number n may come out as the next number above it, and be a stair too high.
    return math.ceil(progress * stairs * (1 - 2**-50))


# The exponential one has no factor apart from start and end, the constant one no start, and that of stairs divides last
# to be exact at each of them: so each says the scale itself.
_SCALES: dict[str, _Scale] = {
    "constant": lambda start, end, u, stairs: end,
    "linear": lambda start, end, u, stairs: start + (end - start) * u,
    "cosine": lambda start, end, u, stairs: start + (end - start) * (1 - math.cos(math.pi * u)) / 2,
    "exponential": lambda start, end, u, stairs: start * (end / start) ** u,
    "step": lambda start, end, u, stairs: start + (end - start) * _rises(u, stairs) / stairs,
}


def _between(factor: Factor, name: str, title: str, word: str) -> _Scale:
    """The values that a factor from start to end makes; ``title`` and ``word`` name the schedule and them in errors."""

    def scale(start: float, end: float, u: float, stairs: int) -> float:
        given = factor(u)
        value = as_number(given)
        if not math.isfinite(value):
            raise InvalidValueError(
                f"{title}: the shape {name} must give a finite number for every u in [0, 1], got {given!r} for {u:g}"
            )
        found = start + (end - start) * value
        if found < 0:
            raise InvalidValueError(
                f"{title}: the shape {name} gives {value:g} for {u:g}, which makes a negative {word} of "
                f"start={start:g} and end={end:g}"
            )
        return found

    return scale


def _name_of(shape: str | Factor) -> str:
    """What a shape is called in states: in angle brackets if it is a callable, so that it is none of the names."""
    if isinstance(shape, str):
        return shape
    name = getattr(shape, "__name__", type(shape).__name__)
    return name if name.startswith("<") else f"<{name}>"


class _Schedule:
    """A value that goes from start to end over a number of steps, and what is done with it at each.

    Args:
        analog: the twin that it acts on.
        shape: see `NoiseSchedule`.
        settings: start, end, steps, stairs, and what else the schedule has.
    """

    _title: ClassVar[str]
    _word: ClassVar[str]

    def __init__(self, analog: nn.Module, shape: str | Factor, settings: dict[str, Any]) -> None:
        self._check(shape, settings)
        matrices_of(analog)
        self._analog = analog
        self._settings: dict[str, Any] = {"shape": _name_of(shape), **self._in_floats(settings)}
        self._own = shape if callable(shape) else None
        self._step = 0
        self._value_at(settings["steps"])  # a callable that fails at the end fails at once

    def _check(self, shape: str | Factor, settings: Mapping[str, Any]) -> None:
        """Refuse settings, given or loaded, that are out of their range."""
        title = self._title
        if not callable(shape) and not (isinstance(shape, str) and shape in _SCALES):
            raise InvalidValueError(
                f"{title}: shape must be one of {', '.join(_SCALES)}, got {shape!r}; or give a function from "
                "[0, 1] to a factor"
            )
        start, end = settings["start"], settings["end"]
        if shape == "exponential" and not (start > 0 and end > 0):
            raise InvalidValueError(f"{title}: exponential needs start and end > 0, got {start!r} and {end!r}")
        for name, least in (("steps", 1), ("warmup", 0), ("stairs", 1)):
            self._check_count(name, settings.get(name, least), least)

    def _check_count(self, name: str, count: object, least: int) -> None:
        check_whole(count, f"{self._title}: {name}", least)

    @staticmethod
    def _in_floats(settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of one type each, whatever numbers were given."""
        return {name: float(value) if name in _REAL else value for name, value in settings.items()}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._settings.items())})"

    def _apply(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} must say what it does at each step")

    def _value_at(self, step: int) -> float:
        """What the shape says of a step."""
        if step < 0:
            raise InvalidValueError(f"{self._title}: a step must be >= 0, got {step}")
        s = self._settings
        shaped = _SCALES[s["shape"]] if self._own is None else _between(self._own, s["shape"], self._title, self._word)
        return float(shaped(s["start"], s["end"], min(1.0, step / s["steps"]), s["stairs"]))

    def step(self) -> None:
        """Go on by one step, and act on the twin."""
        self._step += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Settings and step; plain numbers and text."""
        return {**self._settings, "last_step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict()`` was taken, and act on the twin.

        Raises:
            ValueError: the state is not that of such a schedule, holds a value that the constructor would refuse, or
                its shape is a callable that this one was not made with. The schedule is as it was then.
        """
        wanted = {*self._settings, "last_step"}
        if set(state) != wanted:
            raise InvalidValueError(f"{self._title}: the state needs the keys {sorted(wanted)}, got {sorted(state)}")
        held, own = state["shape"], self._settings["shape"]
        known = isinstance(held, str) and held in _SCALES
        if held != own and (self._own is not None or not known):
            made = f"{type(self).__name__}(..., shape={held!r})" if known else "the callable of that name"
            raise InvalidValueError(
                f"{self._title}: the state has the shape {held}, and this schedule was made with {own}; make it with "
                f"{made}"
            )
        self._check(held if self._own is None else self._own, state)
        self._check_count("last_step", state["last_step"], 0)
        self._settings = self._in_floats({name: state[name] for name in self._settings})
        self._step = state["last_step"]
        self._apply()


class NoiseSchedule(_Schedule):
    r"""Moves the noise scale of a twin from ``start`` to ``end`` over ``steps`` steps.

    With the progress :math:`u = \min(1, step/steps)`:

    * ``"constant"``: ``end``
    * ``"linear"``: :math:`start + (end - start) u`
    * ``"cosine"``: :math:`start + (end - start) (1 - \cos \pi u)/2`
    * ``"exponential"``: :math:`start\,(end/start)^u`
    * ``"step"``: ``stairs`` equal rises, the last one at ``end``: :math:`start + (end - start) \lceil u\,n \rceil / n`
    * a callable f, such as ``lambda u: u**2``: :math:`start + (end - start) f(u)`

    The first ``warmup`` steps go linearly from 0 up to what the shape says there. ``jitter`` multiplies each step's
    scale by a factor uniform in :math:`[1 - jitter, 1 + jitter]`. The scale is a closed form of the step: nothing
    compounds, and any step can be asked for or resumed.

    Used like a learning-rate scheduler: made once, ``step()`` after each ``optimizer.step()``.

    Args:
        analog: the twin whose scale is set, at once and at every step.
        shape: one of the five names above, or a callable. States hold a callable by its name: hand it over again before
            loading one.
        start: scale at step 0.
        end: scale from step ``steps`` on.
        steps: length, in steps.
        warmup: steps of the linear start from zero.
        jitter: relative half-width of the random factor of each step, in [0, 1].
        stairs: number of rises of ``"step"``.
        seed: of the jitter.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> import torch, analogsim
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="pcm")
        >>> schedule = analogsim.NoiseSchedule(analog, "linear", start=0.0, end=1.0, steps=4)
        >>> [schedule.scale_at(step) for step in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    _title, _word = "noise schedule", "scale"

    def __init__(
        self,
        analog: nn.Module,
        shape: str | Factor = "constant",
        *,
        start: float = 0.0,
        end: float = 1.0,
        steps: int = 1,
        warmup: int = 0,
        jitter: float = 0.0,
        stairs: int = 4,
        seed: int = 0,
    ) -> None:
        settings = {
            "start": start,
            "end": end,
            "steps": steps,
            "warmup": warmup,
            "jitter": jitter,
            "stairs": stairs,
            "seed": seed,
        }
        super().__init__(analog, shape, settings)
        self._apply()

    def _check(self, shape: str | Factor, settings: Mapping[str, Any]) -> None:
        for name in ("start", "end"):
            if not 0 <= as_number(settings[name]) <= LARGEST_SCALE:
                raise InvalidValueError(
                    f"noise schedule: {name} must be finite and >= 0, got {in_short(settings[name])}"
                )
        if not 0 <= as_number(settings["jitter"]) <= 1:
            raise InvalidValueError(f"noise schedule: jitter must be in [0, 1], got {settings['jitter']!r}")
        check_whole(settings["seed"], "noise schedule: seed", -(2**63), 2**63 - 1)
        super()._check(shape, settings)

    def _apply(self) -> None:
        set_noise_scale(self._analog, self.scale_at(self._step))

    def scale_at(self, step: int) -> float:
        """The scale of a step, jitter included; the state of the schedule does not matter."""
        scale, s = self._value_at(step), self._settings
        if step < s["warmup"]:
            scale *= step / s["warmup"]
        if s["jitter"]:
            # A generator made for the step alone keeps the closed form.
            scale *= 1 + s["jitter"] * random.Random(f"{s['seed']}/{step}").uniform(-1, 1)
        return float(scale)

    def get_last_scale(self) -> float:
        """The scale that is set now."""
        return self.scale_at(self._step)


class ClipSchedule(_Schedule):
    """Clips the weights of a twin after each step, to a limit that moves from ``start`` to ``end``.

    Wide at first, so that training finds its weights, and narrow at the end, where they go onto chips. Used like
    `NoiseSchedule`: made once, which clips to ``start``, and ``step()`` after each ``optimizer.step()``.

    Args:
        analog: the twin, see `clip_weights`.
        shape: see `NoiseSchedule`.
        start: limit at step 0, in standard deviations.
        end: limit from step ``steps`` on.
        steps: length, in steps.
        per: ``"layer"`` or ``"column"``, see `clip_weights`.
        stairs: number of changes of ``"step"``.

    Raises:
        ValueError: an argument out of its range; or see `clip_weights`.

    Example:
        >>> import torch, analogsim
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="pcm")
        >>> schedule = analogsim.ClipSchedule(analog, "linear", start=4.0, end=2.0, steps=4, per="column")
        >>> [schedule.sigmas_at(step) for step in range(6)]
        [4.0, 3.5, 3.0, 2.5, 2.0, 2.0]
    """

    _title, _word = "clip schedule", "limit"

    def __init__(
        self,
        analog: nn.Module,
        shape: str | Factor = "linear",
        *,
        start: float = 4.0,
        end: float = 2.0,
        steps: int = 1,
        per: Per = "layer",
        stairs: int = 4,
    ) -> None:
        super().__init__(analog, shape, {"start": start, "end": end, "steps": steps, "per": per, "stairs": stairs})
        self._apply()

    def _check(self, shape: str | Factor, settings: Mapping[str, Any]) -> None:
        for name in ("start", "end"):
            if not 0 < as_number(settings[name]) < math.inf:
                raise InvalidValueError(f"clip schedule: {name} must be finite and > 0, got {settings[name]!r}")
        if settings["per"] not in get_args(Per):
            raise InvalidValueError(
                f"clip schedule: per must be one of {', '.join(get_args(Per))}, got {settings['per']!r}"
            )
        super()._check(shape, settings)

    def _apply(self) -> None:
        clip_weights(self._analog, self.sigmas_at(self._step), per=self._settings["per"])

    def sigmas_at(self, step: int) -> float:
        """The limit of a step, in standard deviations; the state of the schedule does not matter."""
        return self._value_at(step)

    def get_last_sigmas(self) -> float:
        """The limit that weights were clipped to last."""
        return self.sigmas_at(self._step)
