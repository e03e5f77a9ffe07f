"""Networks of many kinds, trained in less than a minute each, for judging what is said of them.

Small ones of torchvision, timm and transformers and some of our own; on digits, Fashion-MNIST and made-up data.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.evaluation.metrics import Metric, as_metric
from analogsim.evaluation.scores import F1
from analogsim.utils.batches import answer, call

Part = tuple[Any, Tensor]
"""Inputs (a tensor, a tuple of arguments, or a mapping of them) and targets."""


@dataclass(frozen=True)
class Case:
    """A trained network and its data.

    Args:
        model: the network.
        train: inputs and targets.
        validation: the same.
        test: the same.
        metric: what it is judged by.
    """

    model: nn.Module
    train: Part
    validation: Part
    test: Part
    metric: Metric


def at(value: Any, index: Tensor) -> Any:
    """Some samples of inputs."""
    if isinstance(value, Mapping):
        return {key: at(entry, index) for key, entry in value.items()}
    return tuple(at(entry, index) for entry in value) if isinstance(value, tuple) else value[index]


def loader(part: Part, size: int = 250) -> list[Part]:
    """Batches of a part."""
    return [(at(part[0], index), part[1][index]) for index in torch.split(torch.arange(len(part[1])), size)]


def _digits(rows: bool = False) -> tuple[Part, ...]:
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = torch.tensor(found.images).float().unsqueeze(1) / 8 - 1, torch.tensor(found.target).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = (x[order, 0] if rows else x[order]), y[order]
    return (x[:1100], y[:1100]), (x[1100:1300], y[1100:1300]), (x[1300:], y[1300:])


def _fashion() -> tuple[Part, ...]:
    from analogsim.recipes.tasks import data_sets

    splits = data_sets.load("fashion-mnist", limit=12_000)
    sizes = {"train": 12_000, "validation": 1_000, "test": 2_000}
    return tuple(
        tuple(torch.stack(part) for part in zip(*(getattr(splits, name)[i] for i in range(size)), strict=True))  # type: ignore[misc]
        for name, size in sizes.items()
    )


def _diabetes() -> tuple[Part, ...]:
    from sklearn.datasets import load_diabetes

    found = load_diabetes()
    x, y = torch.tensor(found.data).float() * 20, (torch.tensor(found.target).float()[:, None] - 152) / 77
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return (x[:260], y[:260]), (x[260:340], y[260:340]), (x[340:], y[340:])


class Recurrent(nn.Module):
    """Rows of an image, one after the other, and the classes after the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 48, batch_first=True)
        self.out = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, rows, pixels)`` to ``(batch, classes)``."""
        states, _ = self.gru(x)
        found: Tensor = self.out(states[:, -1])
        return found


def _separable() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *block(16, 32, 2),
        *block(32, 48, 1),
        *block(48, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    class Grey(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = VisionTransformer(
                image_size=8, patch_size=2, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
            )

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.net(x.expand(-1, 3, -1, -1))
            return found

    return Grey()


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 10))


def _lenet() -> nn.Module:
    from analogsim.recipes.tasks import networks

    return networks.build("lenet5", (1, 28, 28), 10)


def _regressor() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 1))


def _squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().flatten(1).mean(1)


class Pair(nn.Module):
    """Whether two pictures are of one class, by what one network makes of each: two inputs, shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 24))
        self.out = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """``(batch, 1, 8, 8)`` twice to ``(batch, 2)``."""
        found: Tensor = self.out((self.encode(one) - self.encode(other)).abs())
        return found


class Segmenter(nn.Module):
    """A small U-Net: down, up, and what was there before beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(12, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.up = nn.ConvTranspose2d(24, 12, 2, 2)
        self.out = nn.Sequential(nn.Conv2d(24, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, 1, 16, 16)`` to scores of classes ``(batch, 3, 16, 16)``."""
        first = self.first(x)
        found: Tensor = self.out(torch.cat((first, self.up(self.down(first))), 1))
        return found


class Forecast(nn.Module):
    """The next value of a series, by an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 32, batch_first=True)
        self.out = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, steps, 1)`` to ``(batch, 1)``, in units of 100,000."""
        states, _ = self.lstm(x)
        return torch.as_tensor(1e5 * self.out(states[:, -1]))


def _mobilenet() -> nn.Module:
    from torchvision.models import MobileNetV2

    settings = [[1, 16, 1, 1], [4, 24, 2, 2], [4, 40, 2, 2], [4, 64, 1, 1]]
    net: nn.Module = MobileNetV2(10, width_mult=0.5, inverted_residual_setting=settings, dropout=0.0)
    first: Any = net.features
    first[0][0] = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
    return net


def _convnext() -> nn.Module:
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(
        in_chans=1,
        num_classes=10,
        depths=(1, 1, 1, 1),
        dims=(16, 24, 32, 48),
        patch_size=1,
        kernel_sizes=3,
        ls_init_value=1.0,
    )


def _mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=8, in_chans=1, patch_size=2, num_blocks=2, embed_dim=48)


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=24,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.num_labels = 10
    return BertForSequenceClassification(config)


def _gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=20,
        bos_token_id=0,
        eos_token_id=0,
        n_positions=32,
        n_embd=48,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config)


def _autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 48),
        nn.GELU(),
        nn.Linear(48, 12),
        nn.Linear(12, 48),
        nn.GELU(),
        nn.Linear(48, 64),
    )


def _split(inputs: Any, target: Tensor) -> tuple[Part, ...]:
    """The first two thirds, a ninth and what is left."""
    count = len(target)
    bounds = (0, 2 * count // 3, 7 * count // 9, count)
    index = torch.arange(count)
    return tuple((at(inputs, index[a:b]), target[a:b]) for a, b in itertools.pairwise(bounds))


def _own_inputs() -> tuple[Part, ...]:
    return tuple((x, x.flatten(1)) for x, _ in _digits())


def _larger() -> tuple[Part, ...]:
    return tuple((nn.functional.interpolate(x, scale_factor=2), y) for x, y in _digits())


def _pairs() -> tuple[Part, ...]:
    """As many of one class as not; others are found at random."""
    found = []
    for number, (x, y) in enumerate(_digits()):
        generator = torch.Generator().manual_seed(number)
        one = torch.randint(len(x), (3 * len(x),), generator=generator)
        other = torch.randint(len(x), (3 * len(x),), generator=generator)
        for place in range(0, len(one), 2):
            same = (y == y[one[place]]).nonzero().flatten()
            other[place] = same[int(torch.randint(len(same), (1,), generator=generator))]
        found.append(((x[one], x[other]), (y[one] == y[other]).long()))
    return tuple(found)


def _maps() -> tuple[Part, ...]:
    """Noisy pictures, of whose pixels is told: background, edge, stroke."""
    found = []
    for number, (x, _) in enumerate(_larger()):
        generator = torch.Generator().manual_seed(number)
        target = (x[:, 0] > -0.9).long() + (x[:, 0] > 0.3).long()
        found.append((x + 0.6 * torch.randn(x.shape, generator=generator), target))
    return tuple(found)


def _series() -> tuple[Part, ...]:
    generator = torch.Generator().manual_seed(0)
    start = 6.3 * torch.rand(2000, 1, generator=generator)
    speed = 0.2 + 0.6 * torch.rand(2000, 1, generator=generator)
    waves = torch.sin(start + speed * torch.arange(25)) + 0.02 * torch.randn(2000, 25, generator=generator)
    return _split(waves[:, :24, None], 1e5 * waves[:, 24:])


def _words() -> tuple[Part, ...]:
    """Rows of tokens; the class is the one behind the mark."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 20, (3600, 12), generator=generator)
    place = torch.randint(11, (3600,), generator=generator)
    rows = torch.arange(3600)
    target = torch.randint(10, (3600,), generator=generator)
    tokens[rows, place], tokens[rows, place + 1] = 20, target + 1
    return _split({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, target)


def _text() -> tuple[Part, ...]:
    """Tokens of a chain with a memory of two; the next ones are asked for."""
    generator = torch.Generator().manual_seed(0)
    likely = torch.softmax(3 * torch.randn(20, 20, 20, generator=generator), -1)
    rows = torch.randint(20, (1800, 25), generator=generator)
    for step in range(2, 25):
        chances = likely[rows[:, step - 2], rows[:, step - 1]]
        rows[:, step] = torch.multinomial(chances, 1, generator=generator)[:, 0]
    return _split(rows[:, :-1], rows[:, 1:])


def _token_loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())


def _scaled_loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(output / 1e5, target / 1e5)


_MSE = as_metric("mean_squared_error")
_ACCURACY = as_metric("accuracy")
_PERPLEXITY = as_metric("perplexity")
_F1 = Metric("f1", F1(), unit="%", higher_is_better=True)
_entropy, _squares = nn.functional.cross_entropy, nn.functional.mse_loss


@dataclass(frozen=True)
class Kind:
    """How a network is made.

    Args:
        build: it, untrained.
        data: for training, validation and test.
        epochs: of its training.
        rate: the largest learning rate.
        metric: what it is judged by.
        loss: what it is trained by.
    """

    build: Callable[[], nn.Module]
    data: Callable[[], tuple[Part, ...]]
    epochs: int
    rate: float
    metric: Metric = _ACCURACY
    loss: Callable[[Tensor, Tensor], Tensor] = _entropy


NETWORKS: dict[str, Kind] = {
    "mlp": Kind(_mlp, _digits, 40, 5e-3),
    "gru": Kind(Recurrent, lambda: _digits(rows=True), 40, 5e-3),
    "vit": Kind(_transformer, _digits, 40, 2e-3),
    "regression": Kind(_regressor, _diabetes, 60, 3e-3, _MSE, _squares),
    "lenet5": Kind(_lenet, _fashion, 5, 3e-3),
    "separable": Kind(_separable, _fashion, 8, 5e-3),
    "mobilenet": Kind(_mobilenet, _larger, 15, 5e-3),
    "convnext": Kind(_convnext, _larger, 15, 4e-3),
    "mixer": Kind(_mixer, _digits, 25, 4e-3),
    "bert": Kind(_bert, _words, 20, 3e-3),
    "gpt": Kind(_gpt, _text, 25, 4e-3, _PERPLEXITY, _token_loss),
    "autoencoder": Kind(_autoencoder, _own_inputs, 40, 4e-3, _MSE, _squares),
    "unet": Kind(Segmenter, _maps, 12, 5e-3),
    "siamese": Kind(Pair, _pairs, 15, 3e-3, _F1),
    "forecast": Kind(Forecast, _series, 30, 8e-3, _MSE, _scaled_loss),
}


def trained(name: str, *, epochs: int | None = None) -> Case:
    """A network after its training.

    Args:
        name: one of `NETWORKS`.
        epochs: fewer, for tests.
    """
    torch.manual_seed(0)
    kind = NETWORKS[name]
    train, validation, test = kind.data()
    torch.manual_seed(0)
    model = kind.build()
    optimizer = torch.optim.Adam(model.parameters(), kind.rate)
    count = kind.epochs if epochs is None else epochs
    steps = -(-len(train[1]) // 64) * count
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, kind.rate, total_steps=max(steps, 1))
    model.train()
    for _ in range(count):
        for index in torch.split(torch.randperm(len(train[1])), 64):
            optimizer.zero_grad()
            output = answer(call(model, at(train[0], index)))
            kind.loss(output, train[1][index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return Case(model.eval(), train, validation, test, kind.metric)
