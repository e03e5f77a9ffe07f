"""One optimisation step of a network: gradients, optimizer, both schedules, clipping of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

import analogsim
from analogsim.errors import InvalidTypeError, OperationError
from analogsim.recipes.config.options import Config
from analogsim.recipes.training.processes import Group
from analogsim.recipes.training.state import name_of
from analogsim.training import Loss, Step, plain_step
from analogsim.training.clipping import Per

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def first_noisy(config: Config, steps: int) -> int:
    """The step of so many with which the network begins to see the hardware; those before it are plain."""
    return round(config.noise.begin * steps)


def noise_schedule(config: Config, net: nn.Module, steps: int) -> analogsim.NoiseSchedule:
    """The schedule that ``config.noise`` describes, of the noisy ones of so many steps; it sets the scale at once."""
    noise = config.noise
    left = steps - first_noisy(config, steps)
    return analogsim.NoiseSchedule(
        net,
        noise.shape,
        start=noise.start,
        end=noise.end,
        steps=max(1, round(noise.ramp * left)),
        warmup=round(noise.warmup * left),
        jitter=noise.jitter,
        seed=config.seed,
    )


def _clipping(config: Config, twin: nn.Module | None, steps: int) -> analogsim.ClipSchedule | Callable[[], None] | None:
    """What clips the weights of a twin after each step; None for none."""
    noise = config.noise
    if twin is None or noise.clip_sigmas is None:
        return None
    per = cast(Per, noise.clip_per)
    if noise.clip_start is None:
        return partial(analogsim.clip_weights, twin, noise.clip_sigmas, per=per)
    ramp = max(1, round(noise.ramp * steps))
    return analogsim.ClipSchedule(twin, "linear", start=noise.clip_start, end=noise.clip_sigmas, steps=ramp, per=per)


def check_method(method: object) -> None:
    """Refuse what is no training step.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(method):
        raise InvalidTypeError(
            f"step: must be a callable (network, loss) that leaves gradients and returns the loss, got {method!r}; see "
            "analogsim.training.plain_step"
        )


class Stepper:
    """Takes one step after another, and holds what moves with them.

    Args:
        config: which optimizer, and what of the noise.
        model: the digital network, whose Parameters are trained.
        net: what training runs: the network, or the twin of it that has the noise; until that one's first step the
            network.
        learned: ranges that are trained besides, without weight decay.
        clipped: the twin whose weights are clipped after each step; None for training without noise.
        schedule: of the noise; None for none.
        steps: of the whole training.
        begin: the first one that runs ``net``.
        method: how such a step comes by its gradients; those before are plain.
        group: the processes that train together.

    Attributes:
        taken: how many steps were taken.

    Raises:
        TypeError: ``method`` is no callable.
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        net: nn.Module,
        learned: Sequence[Tensor],
        *,
        clipped: nn.Module | None,
        schedule: analogsim.NoiseSchedule | None,
        steps: int,
        begin: int,
        method: Step,
        group: Group,
    ) -> None:
        check_method(method)
        rule = config.optimization
        self._net = net
        self._begin = begin
        self.taken = 0
        self._trained = tuple(model.parameters())
        self._proven = False  # whether the method was seen to leave gradients
        self._learned = learned
        self._clip = _clipping(config, clipped, steps)
        self._noise_schedule = schedule
        self._method = method
        self._group = group
        self._optimizer = _OPTIMIZERS[rule.optimizer](self._trained, lr=rule.lr, weight_decay=rule.weight_decay)
        if learned:
            self._optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        self._lr_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, max(1, steps))

    def step(self, loss: Loss) -> Tensor:
        """Take a step on a batch, and give what the method gives: its loss, without graph.

        Raises:
            TypeError: the method gives no scalar tensor.
            RuntimeError: at the first step, it leaves no gradient.
        """
        self._optimizer.zero_grad()
        noisy = self.noisy
        value = self._scalar(self._method(self._net, loss) if noisy else plain_step(self._net, loss))
        if noisy and not self._proven:
            self._check_gradients()
            self._proven = True
        self._group.average_gradients(self._learned)
        self._optimizer.step()
        self._lr_schedule.step()
        self.taken += 1
        if noisy and self._noise_schedule is not None:
            self._noise_schedule.step()
        if isinstance(self._clip, analogsim.ClipSchedule):
            self._clip.step()
        elif self._clip is not None:
            self._clip()
        return value

    @property
    def noisy(self) -> bool:
        """Whether the next step runs the network that has the noise."""
        return self.taken >= self._begin

    def _scalar(self, value: object) -> Tensor:
        """What the method gives, as the loss; its graph, which would keep the memory of every step, is let go."""
        if not isinstance(value, Tensor) or value.ndim:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise InvalidTypeError(
                f"the training step {name_of(self._method)} must return the loss, a scalar tensor, got {got}"
            )
        return value.detach() if value.requires_grad else value

    def _check_gradients(self) -> None:
        if all(parameter.grad is None for parameter in self._trained):
            raise OperationError(
                f"the training step {name_of(self._method)} left no gradient in the Parameters; it must call backward "
                "on the loss, and not clear the gradients afterwards"
            )

    def metrics(self) -> dict[str, float]:
        """Where both schedules stand."""
        values = {"train/lr": float(self._lr_schedule.get_last_lr()[0])}
        if self._noise_schedule is not None:
            values["train/noise_scale"] = self._noise_schedule.get_last_scale() if self.noisy else 0.0
        return values

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "lr_schedule": self._lr_schedule.state_dict(),
            "noise_schedule": None if self._noise_schedule is None else self._noise_schedule.state_dict(),
            "clip_schedule": self._clip.state_dict() if isinstance(self._clip, analogsim.ClipSchedule) else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stands; what else is in it is left alone."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._lr_schedule.load_state_dict(state["lr_schedule"])
        self.taken = self._lr_schedule.last_epoch
        if self._noise_schedule is not None:
            self._noise_schedule.load_state_dict(state["noise_schedule"])
        if isinstance(self._clip, analogsim.ClipSchedule):
            self._clip.load_state_dict(state["clip_schedule"])
