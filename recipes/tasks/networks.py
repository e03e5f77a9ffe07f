"""The networks the recipes train: a few small classics, torchvision's classifiers by name, and users' own."""

import contextlib
import copy
import difflib
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analogsim.errors import InvalidTypeError, InvalidValueError, MissingPackageError
from analogsim.recipes.tasks.audio_networks import AUDIO_NETWORKS
from analogsim.recipes.tasks.references import call_factory, is_reference, load_object, named
from analogsim.recipes.tasks.sequence_networks import SEQUENCE_NETWORKS
from analogsim.utils.packages import how_to_install

MODEL_NAMES: tuple[str, ...] = ("mlp", "mlp-16", "lenet5", "resnet20", "resnet32")

_Shape = tuple[int, int, int]

Model = str | nn.Module | Callable[..., nn.Module]
"""A network by its name, by a reference such as ``"nets.py:build"``, by its factory, or itself."""

# torchvision models, by the start of their names, that accept only the size they were made for ...
_EXACT = {"vit_": 224, "maxvit_": 224}
# ... or that need more pixels than the others.
_AT_LEAST = {"inception_v3": 299, "": 64}
# Their training output is a tuple with auxiliary logits unless told otherwise; and unless told to initialise,
# they warn that a later version will not.
_OPTIONS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def build(name: str, shape: tuple[int, int, int], classes: int, *, seed: int | None = None) -> nn.Module:
    """A fresh network that maps images `(N, *shape)` to logits `(N, classes)`, for `cross_entropy`.

    Args:
        name: One of `MODEL_NAMES`, or a torchvision classifier such as "resnet18" or "vit_b_16".
        shape: One image, `(C, H, W)`. Images smaller than a network can take are enlarged bilinearly by its
            first module; torchvision's networks also take one channel, which is given to all three.
        classes: How many logits.
        seed: Makes the initialisation the same each time, and leaves the global random state as it was.
            Default: drawn from the global random state.

    Raises:
        ValueError: An unknown name, or a shape or number of classes that makes no sense.
        ImportError: The name is not one of ours and torchvision is not installed.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise InvalidValueError(f"model: shape must be (channels, height, width), each >= 1, got {tuple(shape)}")
    if classes < 1:
        raise InvalidValueError(f"model: classes must be >= 1, got {classes}")
    if seed is None:
        return _build(name, shape, classes)
    with _seeded(seed):
        return _build(name, shape, classes)


def make_network(model: Model, facts: Mapping[str, Any], *, seed: int) -> nn.Module:
    """A fresh network for data of which so much is known.

    Args:
        model: A name that `build` knows; ``"package.module:factory"`` or ``"file.py:factory"``; a factory, that is a
            function or a class that gives a module and may ask for facts by name; or a module, of which a copy is
            taken.
        facts: Of the data, see `Splits.facts`.
        seed: Makes the initialisation the same each time, and leaves the global random states (torch's on the CPU,
            numpy's, Python's) as they were.

    Raises:
        ValueError: An unknown name, data that the network is not for, or a factory that raises an error.
        TypeError: A factory that asks for what is not known, or gives no module.
        FileNotFoundError, ImportError: See `load_object`.
    """
    if isinstance(model, nn.Module):
        return _checked(copy.deepcopy(model), model)
    if isinstance(model, str) and not is_reference(model):
        return _by_name(model, facts, seed)
    factory = load_object(model, "model") if isinstance(model, str) else model
    if isinstance(factory, nn.Module):  # made when its file was imported
        return _checked(copy.deepcopy(factory), model)
    with _seeded(seed):
        return _checked(call_factory(factory, "model", facts), model)


def check_model(model: Model) -> None:
    """Whether a network can be meant, as far as it shows without data; code that it names is imported.

    Raises:
        ValueError, TypeError, FileNotFoundError, ImportError: See `make_network`.
    """
    found = load_object(model, "model") if isinstance(model, str) and is_reference(model) else model
    if not (isinstance(found, str | nn.Module) or callable(found)):
        raise InvalidTypeError(f"model: {named(model)} must be a factory or a module, got {type(found).__name__}")
    if isinstance(found, str) and found not in _BUILDERS and (found.endswith(".py") or "/" in found or ":" in found):
        load_object(found, "model")  # which says what is wrong with it


def _by_name(name: str, facts: Mapping[str, Any], seed: int) -> nn.Module:
    shape, outputs = facts.get("shape"), facts.get("outputs", facts.get("classes"))
    if name == "mlp" and shape is not None and outputs is not None and len(shape) != 3 and math.prod(shape) > 0:
        shape = (1, 1, math.prod(shape))  # it flattens its inputs, whatever they are
    audio = AUDIO_NETWORKS.get(name)
    if audio is not None and shape is not None and outputs is not None:
        with _seeded(seed):
            return audio(tuple(shape), outputs)
    if name in SEQUENCE_NETWORKS:
        return _of_sequences(name, facts, seed)
    if shape is None or outputs is None or len(shape) != 3:
        raise InvalidValueError(
            f"model: {name!r} takes images (channels, height, width) and gives one row of numbers, not for "
            f"these data (shape {shape}, outputs {outputs}); name a factory of your own, such as nets.py:build"
        )
    return build(name, shape, outputs, seed=seed)


def _of_sequences(name: str, facts: Mapping[str, Any], seed: int) -> nn.Module:
    shape = facts.get("shape")
    if shape is None or len(shape) != 1 or "vocabulary" not in facts:
        raise InvalidValueError(f"model: {name!r} takes numbers of tokens (places,), not these data (shape {shape})")
    with _seeded(seed):
        return SEQUENCE_NETWORKS[name](facts)


def _checked(network: Any, model: Model) -> nn.Module:
    if not isinstance(network, nn.Module):
        hint = "; does it lack a return?" if network is None else ""
        got = repr(network) if network is None or isinstance(network, type) else type(network).__name__
        raise InvalidTypeError(f"model: {named(model)} must give a torch.nn.Module, got {got}{hint}")
    if not any(True for _ in network.parameters()):
        raise InvalidValueError(
            f"model: {named(model)} gives a network without Parameters; there is nothing to put on chips"
        )
    if any(parameter.is_meta for parameter in network.parameters()):
        raise InvalidValueError(
            f"model: {named(model)} gives Parameters without values (torch's meta device); let it make them on the CPU"
        )
    return network


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers of a seed, and afterwards those that would have come.

    On the CPU whatever the default device, so that a seed is the same network everywhere. Not through
    torch.manual_seed: it seeds the accelerators too, whose state fork_rng(devices=[]) does not restore.
    """
    before, others = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        np.random.set_state(before)
        random.setstate(others)


def _build(name: str, shape: _Shape, classes: int) -> nn.Module:
    builder = _BUILDERS.get(name)
    return _torchvision(name, shape, classes) if builder is None else builder(shape, classes)


def _named(*layers: tuple[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))  # names, not numbers: device patterns such as "fc*" are written on them


def _resize(shape: _Shape, least: int) -> tuple[_Shape, list[tuple[str, nn.Module]]]:
    """The shape with both sides at least `least`, and the module that gets there, if one is needed."""
    channels, height, width = shape
    size = (max(height, least), max(width, least))
    if size == (height, width):
        return shape, []
    return (channels, *size), [("resize", nn.Upsample(size, mode="bilinear", align_corners=False))]


def _mlp(shape: _Shape, classes: int) -> nn.Module:
    """Two hidden layers of 100 sigmoid units: 784-100-100-10 on 28x28 images.

    The network of the forum thread that this package grew from, but for its end: that one had LogSoftmax,
    this one has the logits that `cross_entropy` takes.
    """
    channels, height, width = shape
    return _named(
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(channels * height * width, 100)),
        ("act1", nn.Sigmoid()),
        ("fc2", nn.Linear(100, 100)),
        ("act2", nn.Sigmoid()),
        ("fc3", nn.Linear(100, classes)),
    )


def _small_mlp(shape: _Shape, classes: int) -> nn.Module:
    """Two hidden layers of 16 rectified units: so few that the error of every weight is felt."""
    return _named(
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(math.prod(shape), 16)),
        ("act1", nn.ReLU()),
        ("fc2", nn.Linear(16, 16)),
        ("act2", nn.ReLU()),
        ("fc3", nn.Linear(16, classes)),
    )


def _lenet5(shape: _Shape, classes: int) -> nn.Module:
    """LeNet-5: two 5x5 convolutions and three fully connected layers, on 28x28 pixels or more.

    LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, Proc. IEEE 86,
    1998. Departures: ReLU for the scaled tanh, max-pooling for the trained subsampling, every map of the
    second convolution sees all six of the first, a linear layer for the radial basis functions at the end,
    and 28x28 images are padded in the first convolution where the paper has a frame of 32x32.
    """
    (channels, height, width), resize = _resize(shape, 28)
    pooled = [(side // 2 - 4) // 2 for side in (height, width)]  # 5 for 28, 6 for 32
    return _named(
        *resize,
        ("conv1", nn.Conv2d(channels, 6, 5, padding=2)),
        ("act1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(6, 16, 5)),
        ("act2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("fc1", nn.Linear(16 * pooled[0] * pooled[1], 120)),
        ("act3", nn.ReLU()),
        ("fc2", nn.Linear(120, 84)),
        ("act4", nn.ReLU()),
        ("fc3", nn.Linear(84, classes)),
    )


class Shortcut(nn.Module):
    """The parameter-free shortcut (option A of the paper): every `stride`-th pixel, new channels zero.

    Args:
        extra: Channels to add.
        stride: Step between the pixels that are kept.
    """

    def __init__(self, extra: int, stride: int) -> None:
        super().__init__()
        self.extra = extra
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, C + extra, H / stride, W / stride)`, rounded up."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut; the first may halve the image and add channels.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out, at least as many.
        stride: Of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else Shortcut(outputs - inputs, stride)
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs, H, W)` to `(N, outputs, H / stride, W / stride)`, rounded up."""
        y = self.act1(self.bn1(self.conv1(x)))
        out: Tensor = self.act2(self.bn2(self.conv2(y)) + self.shortcut(x))
        return out


def _resnet(shape: _Shape, classes: int, blocks: int) -> nn.Module:
    """The residual network for CIFAR with three stages of `blocks` blocks, `6 * blocks + 2` layers deep.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016, section 4.2; convolutions
    drawn as in He et al., ICCV 2015. Departures: none for 32x32 colour images; other sizes and numbers of
    channels are accepted, and images below 28x28 are enlarged.
    """
    (channels, _, _), resize = _resize(shape, 28)
    stages: list[tuple[str, nn.Module]] = []
    inputs = 16
    for index, outputs in enumerate((16, 32, 64)):
        stage = nn.Sequential()
        for at in range(blocks):
            stage.append(Block(inputs, outputs, stride=2 if index > 0 and at == 0 else 1))
            inputs = outputs
        stages.append((f"stage{index + 1}", stage))
    network = _named(
        *resize,
        ("conv1", nn.Conv2d(channels, 16, 3, padding=1, bias=False)),
        ("bn1", nn.BatchNorm2d(16)),
        ("act1", nn.ReLU()),
        *stages,
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(64, classes)),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


_BUILDERS: dict[str, Callable[[_Shape, int], nn.Module]] = {
    "mlp": _mlp,
    "mlp-16": _small_mlp,
    "lenet5": _lenet5,
    "resnet20": lambda shape, classes: _resnet(shape, classes, blocks=3),
    "resnet32": lambda shape, classes: _resnet(shape, classes, blocks=5),
}


class RepeatChannel(nn.Module):
    """Give the one channel of a grey image to each of `channels` channels.

    Args:
        channels: Channels that go out.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 1, H, W)` to `(N, channels, H, W)`."""
        return x.expand(-1, self.channels, -1, -1)


def _torchvision(name: str, shape: _Shape, classes: int) -> nn.Module:
    """A torchvision classifier under the name "model", behind what fits the images to it.

    It is wrapped also where nothing needs fitting, so that patterns on module names fit any data set.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingPackageError(
            f"model: {name!r} is none of ours ({', '.join(MODEL_NAMES)}), and torchvision is not there: "
            + how_to_install("recipes")
        ) from error
    known = models.list_models(module=models)  # of this module: the classifiers only
    if name not in known:
        near = difflib.get_close_matches(str(name).lower(), [*MODEL_NAMES, *AUDIO_NETWORKS, *SEQUENCE_NETWORKS, *known])
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        ours = ", ".join((*MODEL_NAMES, *AUDIO_NETWORKS, *SEQUENCE_NETWORKS))
        raise InvalidValueError(
            f"model: unknown name {name!r}, known are {ours} and "
            f"torchvision's classifiers, and file.py:factory for one of your own{hint}"
        )
    channels, height, width = shape
    if channels not in (1, 3):
        raise InvalidValueError(f"model: {name} takes images of 1 or 3 channels, got {channels}")
    front: list[tuple[str, nn.Module]] = []
    exact = next((side for start, side in _EXACT.items() if name.startswith(start)), None)
    if exact is None:
        least = next(side for start, side in _AT_LEAST.items() if name.startswith(start))
        front += _resize(shape, least)[1]
    elif (height, width) != (exact, exact):
        front.append(("resize", nn.Upsample((exact, exact), mode="bilinear", align_corners=False)))
    if channels == 1:
        front.append(("repeat", RepeatChannel()))
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **_OPTIONS.get(name, {}))
    return _named(*front, ("model", model))
