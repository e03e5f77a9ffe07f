"""Whether a network answers the data at all, asked before training: a run that cannot be ends in one line."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn

from analogsim.errors import InvalidValueError
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.loaders import take
from analogsim.recipes.tasks.networks import Model
from analogsim.recipes.tasks.references import named
from analogsim.utils.batches import answer, call, describe, moved, split
from analogsim.utils.modules import own_copy

_SAMPLES = 2  # batch norm takes no single one in training


def check_answers(network: nn.Module, model: Model, data: Splits, *, learns: bool) -> None:
    """Let a copy of a network answer two training samples, as training will, and its task find a loss for them.

    Parameters, running statistics and random numbers are as before.

    Args:
        network: on the torch device where it will run.
        model: what it was made of, for messages.
        data: with its task.
        learns: whether it will be trained, and not only be judged.

    Raises:
        ValueError: the network does not take the inputs, its answers are not for the targets, or there is nothing in it
            that could learn.
    """
    if learns and not any(parameter.requires_grad for parameter in network.parameters()):
        raise InvalidValueError(
            f"model: all Parameters of {named(model)} are frozen (requires_grad=False), and nothing can be trained; "
            "let some be trained, or say optimization.epochs=0"
        )
    there = next(network.parameters()).device
    few = take(data.train, torch.arange(min(_SAMPLES, len(data.train))))
    inputs, target = moved(split(next(iter(data.batches(few, _SAMPLES)))), there)
    own = own_copy(network).train(learns)
    python, others = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([there] if there.type == "cuda" else []):
            given = _given(own, inputs, model, data)
            if learns:
                _judge(given, target, model, data)
    finally:
        random.setstate(python)
        np.random.set_state(others)


def _given(network: nn.Module, inputs: Any, model: Model, data: Splits) -> Any:
    try:
        return answer(call(network, inputs))
    except Exception as error:
        raise InvalidValueError(
            f"model: {named(model)} does not answer samples of {data.name}, {describe(inputs)}: {_told(error)}; "
            "analogsim --debug ... shows where"
        ) from error


def _judge(given: Any, target: Any, model: Model, data: Splits) -> None:
    data.task.check_answer(given, data.facts)
    try:
        data.task.loss(given, target)
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"task {data.task.name}:"):
            raise
        raise InvalidValueError(
            f"task {data.task.name}: there is no loss of what {named(model)} answers, {describe(given)}, for targets "
            f"of {data.name}, {describe(target)}: {_told(error)}; analogsim --debug ... shows where"
        ) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
