"""The training steps that go by a name: how a step comes by its gradients."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from analogsim.errors import InvalidValueError
from analogsim.training import SeveralDraws, SharpnessAware, Step, plain_step
from analogsim.utils.text import named_call

METHODS: Mapping[str, Callable[..., Step]] = {
    "one-draw": lambda: plain_step,
    "several-draws": SeveralDraws,
    "sharpness-aware": SharpnessAware,
}
"""What makes each of them of its parameters."""


def method_of(text: str) -> Step:
    """The training step that a text names.

    Args:
        text: a name, or a name with parameters, such as ``"several-draws(count=4, of='cvar')"``.

    Raises:
        ValueError: there is none of this name, it has no such parameter, or a parameter does not take the value.
    """
    name, parameters = named_call(text, "training.step", "count=4")
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidValueError(f"training.step: there is no {name!r}; {hint}known are {', '.join(METHODS)}")
    try:
        return METHODS[name](**parameters)
    except (TypeError, ValueError) as error:
        raise InvalidValueError(f"training.step: {text!r}: {error}") from error
