"""A small network with convolutions, depthwise ones too, and batch norm, on random data that it knows."""

import pytest
import torch
from torch import nn

import analogsim
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.judge.bench import Bench, Part
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.variant import Subject


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()


@pytest.fixture
def samples(model):
    x = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Samples([(part, model(part).argmax(1)) for part in x.split(20)])


@pytest.fixture
def subject(model, samples):
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    return Subject(analog, [inputs for inputs, _ in samples], "pcm", "standard")


@pytest.fixture
def bench(subject):
    return Bench(subject, METRICS["accuracy"], Clock(1e6))


@pytest.fixture
def part(samples):
    return Part(samples, 5, ("1s", "1y"))
