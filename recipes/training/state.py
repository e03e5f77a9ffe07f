"""What a checkpoint tells of a training: whether it is of these options, and where the random numbers stand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.stored import from_stored
from analogsim.recipes.config.toml import flatten
from analogsim.recipes.tasks.references import is_reference
from analogsim.recipes.tracking.stores import shown
from analogsim.recipes.training.processes import Group
from analogsim.training import plain_step

# What may be another one when a run is continued: nothing of it touches the weights.
_FREE = ("out", "run_on", "baseline", "data.folder", "data.download", "evaluation.", "tracking.")


def without_password(config: Config) -> Config:
    """The options as they are kept where others may read them: of an address without its password."""
    uri = config.tracking.uri
    return config if uri is None else replace(config, tracking=replace(config.tracking, uri=shown(uri)))


def name_of(method: Callable[..., Any]) -> str:
    """The name of a training step, by which a checkpoint knows it: of the function, or of the object's class."""
    named = method if hasattr(method, "__qualname__") else type(method)
    return f"{named.__module__}.{named.__qualname__}"


def check_options(content: dict[str, Any], config: Config, *, aware: bool, method: str, source: str) -> None:
    """Refuse a checkpoint from which a training with these options would not go on to the same numbers.

    Args:
        content: of the checkpoint.
        config: the options now.
        aware: whether the network is trained with noise.
        method: from `name_of`.
        source: the checkpoint, for errors.

    Raises:
        ValueError: what differs, and what to do.
    """
    if content["aware"] != aware:
        raise InvalidValueError(f"{source} is of the other network: hardware-aware and plain were mixed up")
    before, now = flatten(from_stored(Config, content["config"], source)), flatten(config)
    for key in before:
        again = is_reference(before[key]) and is_reference(now[key])  # code that was named again, from elsewhere maybe
        if before[key] != now[key] and not key.startswith(_FREE) and not again:
            raise InvalidValueError(
                f"{source} was trained with {key}={before[key]!r}, now it is {now[key]!r}; go on with the options "
                "it was started with, or start anew in another folder"
            )
    known = content.get("step", name_of(plain_step))
    if known != method:
        raise InvalidValueError(
            f"{source} was trained by steps of {known}, now they are of {method}; go on from Python with "
            "train(config, folder, step=...), or start anew in another folder"
        )


class RandomStates:
    """Where the random numbers of one process stand between epochs: torch's global ones, and the order of samples.

    Args:
        seed: of both.
        device: where the network computes.
        group: the processes that train together; each has noise of its own, and all have one order of samples.

    Attributes:
        shuffle: from the seed alone, so that plain and hardware-aware training see the same batches.
        states: torch's, at the start of the next epoch, by the type of device.
    """

    def __init__(self, seed: int, device: torch.device, group: Group) -> None:
        self.shuffle = torch.Generator().manual_seed(seed)
        self._device = device
        self._group = group
        own = group.seed(seed)
        self.states: dict[str, Tensor] = {"cpu": torch.Generator().manual_seed(own).get_state()}
        if device.type == "cuda":
            self.states["cuda"] = torch.Generator(device).manual_seed(own).get_state()

    def put(self) -> None:
        """Set torch's global random state to these."""
        torch.set_rng_state(self.states["cpu"])
        if self._device.type == "cuda" and "cuda" in self.states:
            torch.cuda.set_rng_state(self.states["cuda"], self._device)

    def take(self) -> None:
        """Take them from torch's global random state."""
        self.states["cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            self.states["cuda"] = torch.cuda.get_rng_state(self._device)

    def state_dict(self) -> dict[str, Any]:
        """Those of all processes, for a checkpoint; every process has to call it."""
        mine, *others = self._group.gather(self.states)
        return {"random": {**mine, "shuffle": self.shuffle.get_state()}, "random_of_others": others}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stands; what else is in it is left alone.

        Warns:
            UserWarning: it is of another number of processes.
        """
        first = dict(state["random"])
        self.shuffle.set_state(first.pop("shuffle"))
        states = [first, *state.get("random_of_others", [])]
        if len(states) != self._group.world:
            warnings.warn(
                f"the checkpoint is of a training in {len(states)} process(es), now there are {self._group.world}: it "
                "goes on, but not to the very same numbers",
                stacklevel=2,
            )
        if self._group.rank < len(states):
            self.states |= states[self._group.rank]
