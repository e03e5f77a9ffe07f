"""The first forwards of a twin: whether its analog layers have a part in them.

Something may read their weights and take the products digitally: a closure that holds the original layers, one
functional call for several layers. The answers are clean then, and look like those of hardware without any error. In
eager code each use of a matrix is counted. A graph of ``torch.compile`` runs past Python; there each matrix is marked,
and the look is taken, when the graph is made.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from analogsim.errors import BypassedError, ConversionWarning
from analogsim.layers.module import matrices_in
from analogsim.layers.state import AnalogState, Uses
from analogsim.utils.torch_private import call_while_tracing, forward_hooks, forward_pre_hooks


class FirstForward:
    """Looks on at the first forwards of a twin: whether any matrix has a part, and in training whether all have.

    It goes when a forward has shown that all have, and after the first one in training. One in eval, where other layers
    may have a part, is looked at once more.

    Args:
        states: of the twin's matrices.
    """

    def __init__(self, states: Sequence[AnalogState]) -> None:
        self._states = list(states)
        self._uses: Uses | None = None
        self._seen_in_eval = False
        self._seen_in_training = False

    def watch(self, twin: nn.Module) -> None:
        """Begin."""
        twin.register_forward_pre_hook(self.begin)
        twin.register_forward_hook(self.end)

    def begin(self, twin: nn.Module, args: Any) -> None:
        """A forward begins."""
        if torch.compiler.is_compiling() or (self._seen_in_eval and not twin.training):
            return
        if self._uses is None:  # else one began in another thread, whose beginning is this one's as well
            self._uses = Uses(self._states)

    def end(self, twin: nn.Module, args: Any, output: Any) -> None:
        """It has ended.

        Raises:
            BypassedError: no analog matrix had a part.
        """
        if torch.compiler.is_compiling():
            # What is raised here ends the graph, and torch.compile makes the forward again in eager code.
            if self._none_is_traced(twin.training, _name_of(twin)):
                raise BypassedError("forward: no analog layer had a part in the answers")
            return
        if self._seen_in_eval and not twin.training:
            return
        # Without a beginning of its own: it was in a graph, or in another thread, which has ended.
        uses, self._uses = self._uses or Uses(self._states, ever=True), None
        uses.check(f"forward of {_name_of(twin)}")
        if twin.training or not uses.idle:
            stop_watching(twin)
        if twin.training:
            self._tell_training(uses, _name_of(twin))
        else:
            self._seen_in_eval = True

    @call_while_tracing
    def _none_is_traced(self, training: bool, name: str) -> bool:
        """Whether no matrix is in the graph that is made, nor was ever used around it."""
        uses = Uses(self._states, ever=True)
        if uses.none:
            return True
        if training:
            self._tell_training(uses, name)
        return False

    def _tell_training(self, uses: Uses, name: str) -> None:
        if not self._seen_in_training:
            self._seen_in_training = True
            uses.warn(f"training of {name}", stacklevel=4)


def _name_of(twin: nn.Module) -> str:
    """The name of the digital type."""
    return str(getattr(twin, "stands_for", type(twin)).__name__)


def stop_watching(twin: nn.Module) -> list[FirstForward]:
    """Let a module go without being looked on at; what looked on."""
    found = {}
    for hooks in (forward_pre_hooks(twin), forward_hooks(twin)):
        for key, hook in list(hooks.items()):
            owner = getattr(hook, "__self__", None)
            if isinstance(owner, FirstForward):
                found[id(owner)] = owner
                del hooks[key]
    return list(found.values())


@contextmanager
def unwatched(twin: nn.Module) -> Iterator[None]:
    """For a block that looks for itself. Some forwards of torch's take another way where a module has hooks."""
    watched = [(module, watch) for module in twin.modules() for watch in stop_watching(module)]
    try:
        yield
    finally:
        for module, watch in watched:
            watch.watch(module)


def watch_first_forward(twin: nn.Module) -> None:
    """See `FirstForward`.

    Warns:
        ConversionWarning: the twin's class has a call of its own that goes past torch's hooks, where nobody looks on.
    """
    called = inspect.getattr_static(type(twin), "__call__")
    code, home = getattr(called, "__code__", None), getattr(called, "__module__", None) or ""
    if not home.startswith("torch.") and (code is None or "__call__" not in code.co_names):
        warnings.warn(
            f"convert: {_name_of(twin)} has a __call__ of its own, which goes past torch's hooks: its first forward is "
            "not looked at for analog layers without a part in it. Make it the forward, or see analogsim.audit",
            ConversionWarning,
            stacklevel=3,
        )
    FirstForward([matrix.analog for matrix in matrices_in(twin)]).watch(twin)
