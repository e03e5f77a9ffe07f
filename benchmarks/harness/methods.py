"""The ways to train on noisy weights that are compared, each as a class with one training step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import analogsim
from analogsim.device.parse import DeviceLike

ABSOLUTE = 0.01  # standard deviation of the thread's noise, in units of the weight
RELATIVE = 0.05  # as a fraction of the largest weight: the default of the device "gaussian"

# Small, so that the network stays where it started and every round does the same arithmetic. The cost of a step
# does not depend on it.
_LEARNING_RATE = 1e-6


def descend(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward and backward of a network under cross-entropy."""
    torch.autograd.backward(F.cross_entropy(network(images), labels))


@torch.no_grad()
def answer(network: nn.Module, images: Tensor) -> Tensor:
    """A forward pass, and nothing kept for a backward one."""
    output: Tensor = network(images)
    return output


def forward_backward(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Forward and backward as in a training step, without the optimizer."""
    network.zero_grad()
    descend(network, images, labels)


class Method:
    """Plain training, from which the others differ in `backward` only.

    Args:
        model: the network, whose Parameters are trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """Add the gradient of the loss to the Parameters, whose values are afterwards as before."""
        descend(self.model, images, labels)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        self.backward(images, labels)
        self.optimizer.step()


class ThreadLoop(Method):
    """The loop of the forum thread as it stands there, without its test of the accuracy.

    Through ``state_dict`` into a second network and back; noise drawn on the CPU and moved; on every Parameter with
    "weight" in its name, those of batch norm included; forward in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.original = copy.deepcopy(model)

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """See `Method.backward`."""
        self.original.load_state_dict(self.model.state_dict())
        self.model.eval()
        for name, parameter in self.model.named_parameters():
            if "weight" in name:
                noise = torch.randn(parameter.shape) * ABSOLUTE
                parameter.data = parameter.data + noise.to(parameter.device)
        descend(self.model, images, labels)
        self.model.load_state_dict(self.original.state_dict())
        self.model.train()


class SaveRestore(Method):
    """The same idea written with care: in place, drawn on the device, only the weights that a chip would hold."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        self.saved = [torch.empty_like(weight) for weight in self.weights]

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """See `Method.backward`."""
        with torch.no_grad():
            for weight, saved in zip(self.weights, self.saved, strict=True):
                saved.copy_(weight)
                weight.add_(torch.randn_like(weight), alpha=ABSOLUTE)
        descend(self.model, images, labels)
        with torch.no_grad():
            for weight, saved in zip(self.weights, self.saved, strict=True):
                weight.copy_(saved)


Noisy = Callable[[Tensor], Tensor]


def absolute(weight: Tensor) -> Tensor:
    """The weight with noise of one size, as the thread's answer has it."""
    return weight + ABSOLUTE * torch.randn_like(weight)


def relative(weight: Tensor) -> Tensor:
    """The weight with noise relative to the layer's largest weight."""
    return weight + RELATIVE * weight.detach().abs().amax() * torch.randn_like(weight)


class HandLayer(nn.Module):
    """A layer as the thread's answer writes it, over the Parameters of another.

    Args:
        layer: whose Parameters are used.
        noisy: what is done to the weight in each forward.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, noisy: Noisy) -> None:
        super().__init__()
        self.weight, self.bias, self.noisy = layer.weight, layer.bias, noisy


class HandLinear(HandLayer):
    """A linear layer with noise on its weight."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer."""
        return F.linear(x, self.noisy(self.weight), self.bias)


class HandConv2d(HandLayer):
    """A convolution padded with zeros, with noise on its weight."""

    def __init__(self, layer: nn.Conv2d, noisy: Noisy) -> None:
        super().__init__(layer, noisy)
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer."""
        weight = self.noisy(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class HandWritten(Method):
    """Layers that add the noise in their forward, which someone had to write for this network.

    Args:
        model: the network; its layers are replaced.
        noisy: what is done to each weight in each forward.
    """

    def __init__(self, model: nn.Module, noisy: Noisy) -> None:
        super().__init__(model)
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, HandLinear(child, noisy))
                elif isinstance(child, nn.Conv2d):
                    setattr(parent, name, HandConv2d(child, noisy))


class Twin(Method):
    """Ours: the loss of the analog twin trains the network.

    Args:
        model: the network.
        device: what `analogsim.convert` takes.
        recompute: whether backward makes draws again instead of keeping them.
    """

    def __init__(self, model: nn.Module, device: DeviceLike, *, recompute: bool = False) -> None:
        super().__init__(model)
        self.analog = analogsim.convert(model, device)
        analogsim.set_recompute(self.analog, recompute)

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """See `Method.backward`."""
        descend(self.analog, images, labels)


@dataclass(frozen=True)
class Contender:
    """A method under the name that the tables call it.

    Args:
        name: unique.
        make: builds it on a network, which is then its own.
        noise: contenders with one noise must have the same gradients from the same seed; "" for one on its own.
    """

    name: str
    make: Callable[[nn.Module], Method]
    noise: str = ""


CONTENDERS = (
    Contender("plain", Method),
    Contender("thread's loop", ThreadLoop),
    Contender("save and restore", SaveRestore, "absolute"),
    Contender("hand-written", lambda model: HandWritten(model, absolute), "absolute"),
    Contender("hand-written, relative", lambda model: HandWritten(model, relative), "relative"),
    Contender("convert, absolute", lambda model: Twin(model, analogsim.Gaussian(ABSOLUTE, law="absolute")), "absolute"),
    Contender("convert, gaussian", lambda model: Twin(model, analogsim.Gaussian(RELATIVE)), "relative"),
    Contender("convert, gaussian, recompute", lambda model: Twin(model, analogsim.Gaussian(RELATIVE), recompute=True)),
    Contender("convert, pcm", lambda model: Twin(model, "pcm")),
)
