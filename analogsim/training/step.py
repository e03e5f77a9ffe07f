"""A training step: how one step of the optimizer comes by its gradients.

A method of training is a callable of the form of `plain_step`. It takes the network and a closure that computes the
loss of the step's batch, each call under a fresh draw of the noise, leaves gradients in the Parameters and returns the
loss. The recipes take such a callable (``analogsim.recipes.train.train(config, step=...)``), and so does any loop::

    for inputs, targets in loader:
        optimizer.zero_grad()
        step(analog, lambda: loss_of(analog(inputs), targets))
        optimizer.step()

The mean over several draws is then::

    def mean_of_four(network, loss):
        total = 0.0
        for _ in range(4):
            part = loss() / 4
            part.backward()
            total += part.detach()
        return total
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Loss = Callable[[], Tensor]
"""Computes the loss of a step's batch, a scalar; every call runs the network again, under noise of its own."""

Step = Callable[[nn.Module, Loss], Tensor]
"""A way to train. It is called with gradients cleared, and gives the loss without its graph.

What it moves on the way, such as the weights, it puts back exactly: by a copy, not by the opposite step. Ranges that a
crossbar learns get gradients as Parameters do, but are none of the network's: `analogsim.range_parameters` gives them.
Where several processes train together each sees its share of the batch, its loss weighted so that the mean over the
processes is that of the batch; a backward leaves the mean gradient of all in the Parameters, and every process calls
backward equally often.
"""


def plain_step(network: nn.Module, loss: Loss) -> Tensor:
    """One draw, one backward.

    Args:
        network: in training; its Parameters get the gradients, on top of what is there.
        loss: of the batch.

    Returns:
        The loss, a scalar without graph.
    """
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    return value.detach()
