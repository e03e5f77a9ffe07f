"""The contract of layers finds what it is there to find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim import Crossbar
from analogsim.layers.matrix import LinearMatrix
from analogsim.layers.module import AnalogLayer
from analogsim.layers.registry import analog_types
from analogsim.testing import LayerContract


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class InName(nn.Linear):
    """For the layer below."""


class AnalogInName(AnalogLayer, InName):
    """Takes no notice of its crossbar."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight, self.bias)


def test_a_layer_that_is_analog_in_name_only_does_not_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Contract(LayerContract):
        def layer(self) -> nn.Module:
            return InName(4, 3)

        def inputs(self) -> tuple[Any, ...]:
            return (noise(3, 4),)

    monkeypatch.setattr(AnalogInName, "stands_for", InName, raising=False)
    monkeypatch.setitem(analog_types, InName, AnalogInName)
    contract = Contract()
    made = InName(4, 3).double(), (noise(3, 4).double(),)
    for name in (
        "test_training_draws_anew_and_the_gradient_lands_on_the_clean_weights",
        "test_a_chip_is_one_chip",
        "test_read_noise_is_new_in_each_use",
        "test_and_back",
        "test_every_matrix_carries_and_is_told",
    ):
        with pytest.raises((AssertionError, pytest.fail.Exception, RuntimeError)):
            getattr(contract, name)(made)


# Layers that are analog most of the time.


class Broken(nn.Linear):
    """For the layers below."""


class _Analog(LinearMatrix, AnalogLayer, Broken):
    """What is sound of them."""

    stands_for = Broken
    analog_only = ("analog", "kept")


class DigitalInEval(_Analog):
    """A chip in its place is not asked."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if self.training else functional.linear(input, self.weight, self.bias)


class DigitalWithAChip(_Analog):
    """Wants a chip, and does not use it."""

    def forward(self, input: Tensor) -> Tensor:
        self.draw()
        return super().forward(input) if self.training else functional.linear(input, self.weight, self.bias)


class DigitalInTraining(_Analog):
    """Has no noise before there is a chip."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight, self.bias) if self.training else super().forward(input)


class OneDraw(_Analog):
    """Trains with the same noise for ever."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return super().forward(input)


class FirstChip(_Analog):
    """Keeps the answer of the first chip."""

    def forward(self, input: Tensor) -> Tensor:
        answer = super().forward(input)
        return answer if self.training else self.__dict__.setdefault("kept", answer)


class FreshInEval(_Analog):
    """Draws a new chip in each use."""

    def forward(self, input: Tensor) -> Tensor:
        mode, self.training = self.training, True
        try:
            return super().forward(input)
        finally:
            self.training = mode


class CutOff(_Analog):
    """Trains no weights."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).detach() + 0.0 * self.bias


class WithoutBias(_Analog):
    """Forgets half of what it is."""

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(input, weight)


class InPlace(_Analog):
    """Leaves its noise in the weights."""

    def forward(self, input: Tensor) -> Tensor:
        answer = super().forward(input)
        if self.training:
            self.weight.data.mul_(1.01)
        return answer


class WithState(_Analog):
    """Has an entry in its state dict that the digital layer knows nothing of."""

    def get_extra_state(self) -> Tensor:
        return torch.zeros(())

    def set_extra_state(self, state: Tensor) -> None:
        pass


class Lax(_Analog):
    """Takes what is cut off."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input[..., :4])


class Strict(_Analog):
    """Wants a batch."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 2:
            raise ValueError("no batch")
        return super().forward(input)


class OneNoise(_Analog):
    """Its noise is the same for all samples."""

    def forward(self, input: Tensor) -> Tensor:
        answer = super().forward(input)
        clean = functional.linear(input, self.weight, self.bias)
        return clean + (answer - clean)[:1]


SAME = "test_without_noise_it_is_the_digital_layer"
TRAINING = "test_training_draws_anew_and_the_gradient_lands_on_the_clean_weights"
CHIP = "test_a_chip_is_one_chip"
READ = "test_read_noise_is_new_in_each_use"
FILES = "test_copies_files_and_state"
BACK = "test_and_back"
TOLD = "test_every_matrix_carries_and_is_told"
TAKES = "test_it_takes_what_the_digital_layer_takes"
SAMPLES = "test_each_sample_has_noise_of_its_own"


# What finds each of them, and that nothing finds the sound one.
FINDS: dict[type[_Analog], set[str]] = {
    _Analog: set(),
    DigitalInEval: {CHIP, READ, FILES, BACK, TOLD, TAKES, SAMPLES},
    DigitalWithAChip: {CHIP, READ, BACK, TOLD, TAKES, SAMPLES},
    DigitalInTraining: {SAME, TRAINING, TAKES},
    OneDraw: {TRAINING},
    FirstChip: {CHIP, READ, FILES, TOLD, TAKES},
    FreshInEval: {CHIP, READ, BACK, TOLD},
    Lax: {TAKES},
    Strict: {TAKES},
    OneNoise: {BACK, TOLD, SAMPLES},
    CutOff: {SAME, TRAINING},
    WithoutBias: {SAME, TRAINING, BACK},
    InPlace: {SAME, TRAINING, TAKES},
    WithState: {FILES},
}


@pytest.mark.parametrize("analog", FINDS)
def test_what_a_broken_layer_fails(analog: type[_Analog], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Contract(LayerContract):
        cuts = ((None, None),)

        def layer(self) -> nn.Module:
            return Broken(4, 3)

        def inputs(self) -> tuple[Any, ...]:
            return (noise(3, 4),)

    monkeypatch.setattr(analog, "stands_for", Broken)
    monkeypatch.setitem(analog_types, Broken, analog)
    contract, found = Contract(), set()
    more: dict[str, tuple[Any, ...]] = {
        SAME: ("pair", Crossbar()),
        FILES: (tmp_path,),
        SAMPLES: ("read noise behind converters", False),
    }
    for name in (SAME, TRAINING, CHIP, READ, FILES, BACK, TOLD, TAKES, SAMPLES):
        torch.manual_seed(0)
        made = Broken(4, 3).double(), (noise(3, 4).double(),)
        try:
            getattr(contract, name)(made, *more.get(name, ()))
        except (AssertionError, pytest.fail.Exception, RuntimeError, ValueError):
            found.add(name)
    assert found == FINDS[analog]
