"""Sharpness-aware steps, scaled by the device's own noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidValueError
from analogsim.layers.module import matrices_of
from analogsim.training.repetition import same_noise
from analogsim.training.step import Loss
from analogsim.training.weight_spread import spread_of_parameters
from analogsim.utils.checks import as_number


@dataclass(frozen=True)
class SharpnessAware:
    r"""A training step whose gradient is taken where the device would move the weights worst; see
    `analogsim.training.step`.

    With the gradient g under a draw of the noise and the device's standard deviation :math:`\sigma` of each weight, the
    second gradient, under the same draw, is taken at

    .. math:: w + \rho \frac{\sigma^2 g}{\lVert \sigma g \rVert}

    which among all errors of :math:`\rho` standard deviations raises the loss most. A chip's error is a sum of as many
    such directions as there are weights, and goes about one standard deviation along any of them. Weights that the
    device does not move, biases and digital layers, stay where they are. It costs two forwards and backwards and the
    draws that :math:`\sigma` is found from (`weight_std`); batch norm sees the batch twice.

    Args:
        radius: :math:`\rho`, in standard deviations of the device.
        draws: from which the standard deviations are found at each step, the same ones for all steps. Few ones do not
            bias the step: what they find of :math:`\sigma^2` is right in the mean, and so is how far the loss rises to
            first order. But the step is longer by what they scatter, :math:`\sqrt{1 + 2 / (n - 1)}` of n draws for
            normal errors: 1.29 of 4, 1.13 of 8, 1.03 of 32.

    Source: the adaptive form of J. Kwon et al., ICML 2021, with the device's standard deviation in the place of the
    weight's magnitude.

    Example:
        >>> import torch, analogsim
        >>> from analogsim.training import SharpnessAware
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="pcm")
        >>> step = SharpnessAware(radius=1.0)
        >>> step(analog, lambda: analog(torch.ones(3, 4)).square().mean()).requires_grad
        False
    """

    radius: float = 1.0
    draws: int = 4

    def __post_init__(self) -> None:
        if not 0 < as_number(self.radius) < math.inf:
            raise InvalidValueError(f"SharpnessAware: radius must be finite and > 0, got {self.radius!r}")
        if isinstance(self.draws, bool) or not isinstance(self.draws, int) or self.draws < 2:
            raise InvalidValueError(f"SharpnessAware: draws must be an integer >= 2, got {self.draws!r}")

    def __call__(self, network: nn.Module, loss: Loss) -> Tensor:
        """Leave the gradient in the Parameters.

        Args:
            network: in training; the twin whose noise is drawn.
            loss: of the batch.

        Returns:
            The loss at the weights that were moved, a scalar without graph.

        Raises:
            ValueError: all analog weights are computed from other Parameters, or see `same_noise`.
        """
        moved = [(p, s) for p, s in spread_of_parameters(network, draws=self.draws) if p.requires_grad]
        if not moved:
            raise InvalidValueError(
                "SharpnessAware: no Parameter holds an analog weight that is trained; those that others compute "
                "(weight norm, pruning) are left out: make them permanent"
            )
        with same_noise(network):
            with _gradients_apart(network):
                loss().backward()  # type: ignore[no-untyped-call]
                scaled = [(p, s, s * p.grad) for p, s in moved if p.grad is not None]
            norm = torch.stack([part.norm() for _, _, part in scaled]).norm().clamp_min(1e-30)
            with _stepped([(p, s * part * (self.radius / norm)) for p, s, part in scaled]):
                value = loss()
                value.backward()  # type: ignore[no-untyped-call]
        return value.detach()


@contextmanager
def _gradients_apart(network: nn.Module) -> Iterator[None]:
    """For a block, nothing has a gradient; what comes is gone afterwards, and what there was is back."""
    ranges = [matrix.analog.input_range for matrix in matrices_of(network)]
    tensors = [*network.parameters(), *(each for each in ranges if each is not None)]
    held = [(tensor, tensor.grad) for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.grad = None
        yield
    finally:
        for tensor, grad in held:
            tensor.grad = grad


@contextmanager
def _stepped(steps: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Parameters elsewhere, for a block; what they were is put back by a copy, which is exact."""
    kept = [(parameter, parameter.detach().clone()) for parameter, _ in steps]
    try:
        with torch.no_grad():
            for parameter, step in steps:
                parameter.add_(step)
        yield
    finally:
        with torch.no_grad():
            for parameter, old in kept:
                parameter.copy_(old)
