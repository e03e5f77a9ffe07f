"""What the tests of conversion share."""

from __future__ import annotations

from torch import nn

from analogsim import AnalogLayer, DeviceModel, Drift, Gaussian

# Two devices without any error: one on weights, one that goes through conductances and back.
CLEAN = {"signed": Gaussian(std=0.0), "pair": DeviceModel((Drift(nu=0.0, nu_std=0.0),))}


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def assert_shared(model: nn.Module, analog: nn.Module) -> None:
    pairs = [(dict(model.named_parameters()), dict(analog.named_parameters()))]
    pairs.append((dict(model.named_buffers()), dict(analog.named_buffers())))
    for mine, theirs in pairs:
        assert mine.keys() == theirs.keys()
        assert all(theirs[name] is tensor for name, tensor in mine.items())


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.layer1 = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.fc = nn.Linear(2, 3)
        self.alias = self.fc


def devices_of(analog: nn.Module) -> dict[str, str]:
    return {layer.analog.name: layer.analog.device.name for layer in analog.modules() if isinstance(layer, AnalogLayer)}
