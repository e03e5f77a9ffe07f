"""The one source of randomness: effects ask a ``Noise`` for numbers and never touch a generator.

Two sources stand behind the door. In training `GlobalNoise` draws from torch's global generator of the tensor's own
device: fast, and steered by ``torch.manual_seed``; where torch.compile takes the forward, it draws a key there and
makes the numbers in the compiled code. On a chip `KeyedNoise` is a pure function of its key (seed, layer name, effect,
...): the same chip on every device, in any order, in any process; what 1/f noise is at one time it is not at others
(`flicker`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from analogsim.noise import counter_based, philox
from analogsim.noise.flicker import FlickerBand, moment
from analogsim.utils.checks import check_flag
from analogsim.utils.torch_private import GENERATOR_WORDS, fill_generator, is_exporting, transforms_are_active

Scale = float | Tensor
"""Of the noise: a number, and in compiled training a scalar where the weights are, never 0."""


def is_silent(scale: Scale) -> bool:
    """Whether a scale leaves nothing of the noise."""
    return not isinstance(scale, Tensor) and scale == 0


class Noise(Protocol):
    """What an effect may ask for. Successive calls give independent numbers."""

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        """Normal numbers of mean 0, a fresh tensor of the shape, dtype and device of ``like``."""
        ...

    def uniform_like(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), a fresh tensor of the shape and device of ``like``, in at least float32."""
        ...

    def fold(self, *key: str) -> Noise:
        """An independent stream of the same source, named by ``key``."""
        ...


def is_fused() -> bool:
    """Whether numbers drawn now are made in the code that torch.compile makes of a forward."""
    # An exported program should draw as other programs draw: what reads it knows normal numbers, but not these.
    return torch.compiler.is_compiling() and not is_exporting()


_compiled: Callable[[int, Tensor], Tensor] | None = None
_WORTH_A_CALL = 2**17  # between other work, calling compiled code takes as long as 100,000 numbers by the generator


def use_compiled_noise(enabled: bool = True) -> None:
    """Whether compiled code makes the draws of eager training on the CPU, on all threads; for the whole process.

    Cells in one-sided pairs whose effects say ``cellwise`` are drawn at once, by one kernel for each device model,
    which its first draw compiles (for seconds to minutes): full phase-change memory takes 10 ns for a weight instead of
    32, all other large normal noise 1 ns for a number instead of torch's 2.5 (``python -m benchmarks noise``; what that
    does to a training step, ``python -m benchmarks draws``).

    The law is the same, the numbers are others than torch's, float32 in any network, and steered by
    ``torch.manual_seed``. Within `torch.compile`, under `torch.func` and on GPUs it changes nothing.

    Args:
        enabled: False for torch's own numbers, as at first.

    Raises:
        TypeError: ``enabled`` is neither True nor False.
        RuntimeError: torch cannot compile here.
    """
    global _compiled
    check_flag(enabled, "use_compiled_noise:")
    _compiled = counter_based.compiled_normal() if enabled else None


def noise_is_compiled(like: Tensor) -> bool:
    """Whether compiled code may make what a tensor's like needs, see `use_compiled_noise`."""
    return (
        _compiled is not None
        and like.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not transforms_are_active()
    )


def _fill(shape: Sequence[int], like: Tensor) -> Tensor:
    """Normal numbers of a shape, in the order of memory, from the global generator."""
    count = math.prod(shape)
    if _compiled is None or count < _WORTH_A_CALL or not noise_is_compiled(like):
        return torch.randn(shape, dtype=like.dtype, device=like.device)
    return _compiled(count, counter_based.fresh_key(like.device)).view(shape).to(like.dtype)


class GlobalNoise:
    """Draws from torch's global generator of the tensor's device; in compiled code, keys of `counter_based`."""

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        """See `Noise`."""
        if is_fused():
            numbers = counter_based.normal(like.shape, counter_based.fresh_key(like.device)).to(like.dtype)
        elif torch.compiler.is_compiling():
            numbers = torch.randn_like(like)  # torch.export knows it better than randn of a shape
        elif like.is_contiguous():
            numbers = _fill(like.shape, like) if _compiled is not None else torch.randn_like(like)
        else:  # torch draws five times as slowly into a transposed tensor
            order = sorted(range(like.ndim), key=like.stride, reverse=True)
            numbers = _fill([like.shape[axis] for axis in order], like).permute(*map(order.index, range(like.ndim)))
        return numbers if std == 1 else numbers.mul_(std)

    def uniform_like(self, like: Tensor) -> Tensor:
        """See `Noise`."""
        if is_fused():
            kind = torch.promote_types(like.dtype, torch.float32)
            return counter_based.uniform(like.shape, counter_based.fresh_key(like.device)).to(kind)
        return torch.rand_like(like)

    def fuses(self) -> bool:
        """Whether its numbers are made in the code that torch.compile makes of a forward."""
        return is_fused()

    def row_keys(self, rows: int, device: torch.device) -> Tensor:
        """Fresh keys of `counter_based.PairedNoise`."""
        return counter_based.row_keys(rows, device)

    def fold(self, *key: str) -> GlobalNoise:
        """The global stream has no branches: every draw is independent already."""
        return self


class KeyedNoise:
    """A stream that is a pure function of its key.

    Numbers are drawn on the CPU in float32 (`philox`) and then moved, so that a chip is the same one wherever its
    tensors live, whatever their dtype, and whatever torch's default device and dtype are. A number depends on the key,
    on how many times numbers of its kind were asked for before, and on its place among those asked for with it.

    Args:
        key: the names of the stream; two streams with different keys are independent, and 128 bits tell them apart.
    """

    def __init__(self, *key: str) -> None:
        self._key = key
        self._lasting = key
        self._bits: philox.Key | None = None
        self._calls = 0
        self._flickers = 0

    def _next(self, make: Callable[[philox.Key, int, int], philox.Floats], like: Tensor) -> Tensor:
        if self._bits is None:
            self._bits = philox.key_of(self._key)
        numbers = make(self._bits, self._calls, like.numel())
        self._calls += 1
        return torch.from_numpy(numbers).view(like.shape)

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        """See `Noise`."""
        numbers = self._next(philox.normal, like)
        return (numbers if std == 1 else numbers.mul_(std)).to(like)

    def uniform_like(self, like: Tensor) -> Tensor:
        """See `Noise`."""
        # Rounding to a narrower dtype may reach 1.0, which a comparison with a probability must not see.
        kind = torch.promote_types(like.dtype, torch.float32)
        return self._next(philox.uniform, like).to(like.device, kind)

    def flicker_like(self, like: Tensor, t: float | Tensor, band: FlickerBand) -> Tensor:
        """See the function `flicker_like`."""
        numbers = philox.tones(philox.key_of(self._lasting), self._flickers, like.numel(), moment(band, float(t)))
        self._flickers += 1
        return torch.from_numpy(numbers).view(like.shape).to(like)

    def at(self, t: float) -> KeyedNoise:
        """The stream of one time of a chip's life: numbers of its own, but for 1/f noise, which remembers.

        Args:
            t: seconds after programming.
        """
        return self._branch((*self._key, f"t={t!r}"), self._lasting)

    def fold(self, *key: str) -> KeyedNoise:
        """See `Noise`."""
        return self._branch((*self._key, *key), (*self._lasting, *key))

    @staticmethod
    def _branch(key: tuple[str, ...], lasting: tuple[str, ...]) -> KeyedNoise:
        branch = KeyedNoise(*key)
        branch._lasting = lasting
        return branch


class StreamNoise:
    """A reproducible stream on the tensor's own device, for what is drawn anew in every use of a chip.

    The numbers depend on the key and on how much was drawn before; they differ between kinds of torch device. 128 bits
    of the key count on a CPU, whose generator gets all of its state from them, and 64 elsewhere.
    """

    def __init__(self, *key: str) -> None:
        self._key = key
        self._generators: dict[torch.device, torch.Generator] = {}

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = self._seeded(device)
        return self._generators[device]

    def _seeded(self, device: torch.device) -> torch.Generator:
        key = philox.key_of(self._key)
        if device.type != "cpu":  # which seed with 64 bits and use them all
            return torch.Generator(device).manual_seed(int(key[0]))
        words = philox.words(key, 0, 0, 0, GENERATOR_WORDS // 2)
        return fill_generator(torch.Generator(device), words.view(np.uint32))

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        """See `Noise`."""
        return torch.empty_like(like).normal_(std=std, generator=self._generator(like.device))

    def uniform_like(self, like: Tensor) -> Tensor:
        """See `Noise`."""
        return torch.empty_like(like).uniform_(generator=self._generator(like.device))

    def get_state(self) -> dict[torch.device, Tensor]:
        """Where it stands, on each torch device that was drawn on."""
        return {device: generator.get_state() for device, generator in self._generators.items()}

    def set_state(self, state: dict[torch.device, Tensor]) -> None:
        """Go back to where it stood; what was not drawn on then begins anew."""
        self._generators = {}
        for device, held in state.items():
            self._generator(device).set_state(held)

    def fuses(self) -> bool:
        """It holds a generator, which no graph does."""
        return False

    def row_keys(self, rows: int, device: torch.device) -> Tensor:
        """Fresh keys of `counter_based.PairedNoise`."""
        return counter_based.row_keys(rows, device, self._generator(device))

    def fold(self, *key: str) -> StreamNoise:
        """See `Noise`."""
        return StreamNoise(*self._key, *key)


class Silence:
    """No noise: zeros for normal numbers and the middle for uniform ones, where one exact answer is wanted."""

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        """See `Noise`."""
        return torch.zeros_like(like)

    def uniform_like(self, like: Tensor) -> Tensor:
        """See `Noise`."""
        return torch.full_like(like, 0.5, dtype=torch.promote_types(like.dtype, torch.float32))

    def fold(self, *key: str) -> Silence:
        """See `Noise`."""
        return self


def flicker_like(noise: Noise, like: Tensor, t: float | Tensor, band: FlickerBand) -> Tensor:
    """Normal numbers of mean 0 and standard deviation 1 for 1/f noise at a time, as `Noise.normal_like` gives them.

    A chip's source gives what it gave at other times of the chip as far as these are near, see the module. One that
    looks at a single time, as training does, gives plain normal numbers, and so does any source without a method
    ``flicker_like`` of its own.

    Args:
        noise: as `Effect.read` gets it.
        like: the numbers' shape, dtype and device.
        t: seconds after programming, by the clock of the device model.
        band: of the noise; its size is the caller's matter.

    Example:
        >>> import torch
        >>> from analogsim.noise import FlickerBand, KeyedNoise, flicker_like
        >>> chip, band, cells = KeyedNoise("chip"), FlickerBand(t0=20.0, t_read=250e-9), torch.zeros(100_000)
        >>> reads = [flicker_like(chip.at(t), cells, t, band) for t in (86400.0, 86401.0)]
        >>> round(float(torch.corrcoef(torch.stack(reads))[0, 1]), 1)
        0.3
    """
    remembering = getattr(noise, "flicker_like", None)
    if remembering is None:
        return noise.normal_like(like)
    numbers: Tensor = remembering(like, t, band)
    return numbers


TrainingNoise = GlobalNoise | StreamNoise
"""Where training draws from."""
