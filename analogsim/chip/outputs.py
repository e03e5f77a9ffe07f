"""A digital scale and offset for each output, measured on a programmed chip against the digital network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from analogsim.chip.clean import as_trained
from analogsim.chip.layer_chip import LayerChip, OutputCorrection, layer_chips, outside_autograd
from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.stages import Affine, Outputs, Plain
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.matrix import AnalogMatrix, Drawn, Taking
from analogsim.layers.module import matrices_of
from analogsim.layers.state import AnalogState, Uses
from analogsim.utils.batches import Inputs, call, inputs_of, is_empty, moved, read_once, refuse_empty, samples_in
from analogsim.utils.modules import in_eval
from analogsim.utils.tensors import holds_nonfinite
from analogsim.utils.text import table
from analogsim.utils.times import label, seconds

Match = Literal["moments", "bias", "scale"]

Batches = Callable[[], Iterable[Inputs]]
"""Gives the batches, where the network is, as often as it is asked."""

# Vectors from which on each output is believed, and how many the prior counts before: for the scale of an output, for
# that of its matrix, and for an offset.
_ENOUGH = 64
_PRIOR_SCALE, _PRIOR_GAIN, _PRIOR_OFFSET = 16.0, 2.0, 5.0
# A scale is at most so many times that of the whole matrix, and that part of it where only noise varies.
_WIDEST = 8.0
# Passes end where corrections move by less than this, in standard deviations.
_STILL = 1e-2
_PASSES = 10
# A standard deviation below this part of the mean is rounding.
_ROUNDING = 3e-6


class Moments:
    """Mean and variance of each output of a matrix, over all that it answers; in memory that does not grow.

    Args:
        outputs: how many.

    Attributes:
        count: how many values each has had.
        mean: of each.
        vectors: how many inputs each is of, the positions of a convolution counted as one: they resemble each other.
        products: how many were taken in.
    """

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs
        self.count = torch.zeros(outputs)
        self.vectors = torch.zeros(outputs)
        self.mean = torch.zeros(outputs)
        self.products = 0
        self._squares = torch.zeros(outputs)

    @property
    def variance(self) -> Tensor:
        """Of each output, over all that was seen; 0 where it is one value, but for rounding."""
        found = self._squares / self.count.clamp(min=1)
        return torch.where(found > (_ROUNDING * self.mean).square(), found, 0.0)

    @property
    def size(self) -> Tensor:
        """The root mean square of all outputs, a scalar."""
        return (self.variance + self.mean.square()).mean().sqrt()

    def copied(self) -> Moments:
        """The same by themselves."""
        other = Moments(self._outputs)
        other.products = self.products
        other.count, other.vectors, other.mean, other._squares = self.count, self.vectors, self.mean, self._squares
        return other

    def add(self, product: Tensor, outputs: Outputs) -> None:
        """Take in a product.

        Args:
            product: dense, of any shape.
            outputs: says which of its axes hold outputs, and which ones.
        """
        if not product.numel():
            return
        self.products += 1
        values = product.double() if product.dtype is torch.float64 else product.float()
        which = outputs.per_output(torch.arange(self._outputs, device=product.device))
        lead = values.ndim - which.ndim
        axes = [axis for axis in range(values.ndim) if axis < lead or which.shape[axis - lead] == 1]
        if axes:
            variance, mean = torch.var_mean(values, axes, correction=0)
        else:
            variance, mean = torch.zeros_like(values), values
        more = values.numel() // mean.numel(), values.shape[:lead].numel()
        self._merge(which.flatten(), more, mean.flatten(), variance.flatten())

    def _merge(self, which: Tensor, counts: tuple[int, int], mean: Tensor, variance: Tensor) -> None:
        """As Chan, Golub and LeVeque, Am. Stat. 37:242 (1983), add up two samples."""
        more, vectors = counts
        held = (self.count, self.vectors, self.mean, self._squares)
        count, seen, before, squares = (value.to(mean.device, mean.dtype) for value in held)
        self.vectors = seen.index_copy(0, which, seen[which] + vectors)
        old, shift = count[which], mean - before[which]
        both = old + more
        self.count = count.index_copy(0, which, both)
        self.mean = before.index_copy(0, which, before[which] + shift * (more / both))
        gained = variance * more + shift.square() * old * (more / both)
        self._squares = squares.index_copy(0, which, squares[which] + gained)


def fitted(match: Match, digital: Moments, chip: Moments) -> Affine:
    r"""The scale and the offset that give each output of a chip the mean and the spread of the digital one.

    The scale is the ratio of standard deviations. Of few samples it is drawn towards that of the whole matrix,
    :math:`g^2 = \sum_k \sigma_k^2 / \sum_k \tilde\sigma_k^2`, which of still fewer is drawn towards 1, and it is that
    where an output of the chip is constant; both by their logarithms, since a few samples of an output may lie close
    together. Offsets are drawn towards none: the mean of a few errors is mostly that of these inputs.

    An output that is constant in the digital network alone keeps an eighth of it, so that it is not dead for good.

    Args:
        match: ``"moments"``, ``"bias"`` (offset only) or ``"scale"``.
        digital: of the digital network.
        chip: of the chip.
    """
    seen = chip.vectors
    mean = digital.mean - chip.mean
    if match == "bias":
        return Affine(None, _trust(seen, _PRIOR_OFFSET) * mean)
    wanted, found = digital.variance, chip.variance
    total, varies = found.sum(), found > 0
    gain = torch.where(total > 0, wanted.sum() / total.clamp(min=torch.finfo(total.dtype).tiny), 1.0)
    gain = torch.where(gain > 0, gain, 1.0)  # nothing of the digital matrix varies
    gain = gain ** _trust(seen, max(_PRIOR_GAIN, _PRIOR_SCALE / len(seen)), 1).max()
    own = torch.where(varies, wanted / torch.where(varies, found, 1.0), gain)
    own = own.clamp(gain / _WIDEST**2, gain * _WIDEST**2)
    scale = (gain * (own / gain) ** _trust(seen, _PRIOR_SCALE, 1)).sqrt()
    if match == "scale":
        return Affine(scale, None)
    still = gain.sqrt() * chip.mean  # where the mean would be by the gain alone
    return Affine(scale, still + _trust(seen, _PRIOR_OFFSET) * (digital.mean - still) - scale * chip.mean)


def _trust(seen: Tensor, prior: float, without: int = 0) -> Tensor:
    """How far what so many vectors say is believed, in [0, 1]; from `_ENOUGH` on it is 1.

    Args:
        seen: how many, for each output.
        prior: how many count before.
        without: how many of them say nothing: 1 of spreads.
    """
    left = prior * (1 - seen / _ENOUGH).clamp(min=0)
    told = (seen - without).clamp(min=0)
    return torch.where(left > 0, told / (told + left).clamp(min=1e-9), 1.0)


class Probe:
    """A digital stage that looks on: first at the digital network, then at the chip, whose products it corrects.

    Args:
        outputs: how many the matrix has.
        match: what is matched.

    Attributes:
        repeated: whether a forward takes several products with the matrix.
    """

    def __init__(self, outputs: int, match: Match) -> None:
        self._outputs = outputs
        self._match: Match = match
        self.digital = Moments(outputs)
        self.chip: Moments | None = None
        self.values = 0
        self.repeated = False
        self.found: Affine | None = None
        self._so_far: list[Moments] = []
        self._uses_before = 0
        self._settled = False
        self._at_once = False
        self._place = 0

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        """See `Stage.after`."""
        if self.chip is None:
            self.digital.add(product, outputs)
            self.values += product.numel()
            return product
        if self._settled:
            return cast(Affine, self.found).after(product, input, outputs)
        self.chip.add(product, outputs)
        if self._at_once:
            digital = self._so_far[min(self._place, len(self._so_far) - 1)]
            self._place += 1
            self.found = fitted(self._match, digital, self.chip)
        return product if self.found is None else self.found.after(product, input, outputs)

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
        """See `Stage.folded`: it has to see the products."""
        return None

    def end_batch(self) -> None:
        """The digital network has answered to a batch."""
        self._so_far.append(self.digital.copied())
        self.repeated = self.repeated or self.digital.products - self._uses_before > 1
        self._uses_before = self.digital.products

    def settle(self, chip: Moments) -> None:
        """Be done, with what the chip answers to the inputs of the digital network."""
        self.chip = chip
        self.found = fitted(self._match, self.digital, chip)
        self._settled = True

    def begin(self, first: bool) -> None:
        """Another pass over the data, through the chip.

        Where a matrix has a product in each forward, that is corrected as soon as it is there, of what the digital
        network had up to the same batch: one pass through all layers for one batch.
        """
        if self._settled:
            return
        batches = len(self._so_far)
        self._at_once = self.digital.products == batches and (first or batches == 1)
        self.chip, self._place = Moments(self._outputs), 0

    def end(self) -> Tensor:
        """How far the correction has moved in this pass, in standard deviations of the digital output.

        Raises:
            ValueError: an output is NaN or infinite.
        """
        chip = cast(Moments, self.chip)
        if self._settled:
            return chip.mean.new_zeros(())
        before, self.found = self.found, fitted(self._match, self.digital, chip)
        if self._at_once:  # exact for one batch; of several the first ones went on with what was known by then
            return chip.mean.new_full((), 0.0 if len(self._so_far) == 1 else torch.inf)
        now, old = (_numbers(affine, chip.mean) for affine in (self.found, before))
        scale, offset = (one - other for one, other in zip(now, old, strict=True))
        moves = (scale * chip.mean + offset).abs() + scale.abs() * chip.variance.sqrt()
        spread = self.digital.variance.mean().sqrt().maximum(self.digital.size * 1e-3)
        return (moves / spread.clamp(min=torch.finfo(spread.dtype).tiny)).mean()


class _Beside:
    """A digital stage in the digital network that lets the chip take each product, too, and looks at what it answers.

    What a matrix that is used several times answers to is made of what it answered before. To match its outputs on the
    chip itself would be a loop, which in trained recurrent networks mostly runs away.

    Args:
        matrix: that is used several times.
        chip: its own.
        crossbar: its own.
    """

    def __init__(self, matrix: AnalogMatrix, chip: LayerChip, crossbar: Crossbar) -> None:
        self._matrix, self._chip, self._crossbar = matrix, chip, crossbar
        self.moments = Moments(matrix.analog.shape[0])

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        """See `Stage.after`."""
        state, matrix = self._matrix.analog, self._matrix
        held = state.chip, state.crossbar, state.stages, state.answering
        state.chip, state.crossbar, state.stages = self._chip, self._crossbar, (_Look(self.moments),)
        state.answering = None
        try:
            drawn = Drawn(matrix, matrix.still()[0])
            (drawn if outputs is matrix else drawn.taken_by(cast(Taking, outputs)))(input)
        finally:
            state.chip, state.crossbar, state.stages, state.answering = held
        return product

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
        """See `Stage.folded`: it has to see the inputs."""
        return None


@dataclass(frozen=True, eq=False)
class _Look:
    """A digital stage that takes products into moments.

    Args:
        moments: which ones.
    """

    moments: Moments

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        """See `Stage.after`."""
        self.moments.add(product, outputs)
        return product

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
        """See `Stage.folded`: it has to see the products."""
        return None


def _numbers(affine: Affine | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset as tensors, also where there are none."""
    scale, offset = (None, None) if affine is None else (affine.scale, affine.offset)
    return torch.ones_like(like) if scale is None else scale, torch.zeros_like(like) if offset is None else offset


@dataclass(frozen=True)
class MatrixOutputs:
    """What was found for one matrix.

    Args:
        name: of the matrix.
        outputs: how many it has.
        values: how many numbers they are for each sample: positions of a convolution, steps of a sequence.
        scales: the smallest and the largest scale.
        offset: the largest offset, relative to the root mean square of the digital matrix's outputs.
    """

    name: str
    outputs: int
    values: int
    scales: tuple[float, float]
    offset: float


@dataclass(frozen=True)
class OutputCalibration:
    """What `calibrate_outputs` has set.

    Args:
        match: what is matched.
        time: the age at which it was measured, seconds.
        samples: that went through the network; the first axis of inputs holds them.
        passes: how often they went through the chip.
        matrices: those that had a part.
    """

    match: Match
    time: float
    samples: int
    passes: int
    matrices: tuple[MatrixOutputs, ...]

    @property
    def numbers(self) -> int:
        """What the digital part has to store: two numbers for each output, or one."""
        return sum(each.outputs for each in self.matrices) * (2 if self.match == "moments" else 1)

    @property
    def multiply_adds(self) -> int:
        """Digital operations for each sample, one for each number that a matrix gives (an addition for ``"bias"``)."""
        return sum(each.values for each in self.matrices)

    def __str__(self) -> str:
        rows = [
            (
                each.name or "(the model itself)",
                str(each.outputs),
                f"{each.scales[0]:.3f} to {each.scales[1]:.3f}",
                f"{each.offset:.3f}",
            )
            for each in self.matrices
        ]
        kind = {"moments": "multiply-adds", "bias": "additions", "scale": "multiplications"}[self.match]
        return (
            f"{table(('matrix', 'outputs', 'scale', 'largest offset / rms'), rows)}\n"
            f"{self.match} of {self.samples} samples at {label(self.time)}: {self.numbers:,} numbers stored, "
            f"{self.multiply_adds:,} digital {kind} for each sample"
        )


def calibrate_outputs(
    analog: nn.Module,
    inputs: Tensor | Mapping[str, Any] | Iterable[Any],
    *,
    match: Match = "moments",
) -> OutputCalibration:
    """Give each output of each analog matrix a digital scale and offset, so that it is as in the digital network.

    Where a crossbar learns its ranges, the network behind its converters, which is the one that was trained, stands in
    the place of the digital one. Unlabelled inputs go through that network and through the programmed chip at its
    present age; what is matched is the mean and the spread of every output over all samples and positions, layer by
    layer in the order of the forward, each measured with those before it already corrected. A matrix that a forward
    uses several times, as recurrent ones, is measured on the inputs that it has in the digital network: on its own
    answers it could run away. The correction belongs to the chip: it stays when the chip drifts on (what it was
    measured at and what it is used at are two things), until it is measured again, and `save_chip` keeps it; `program`
    and `erase` drop it. Nothing else changes.

    One batch needs two forwards, three where a matrix is used several times. Several batches need a few more, until
    nothing moves by a hundredth of the spread, ten at most; only means and variances are kept.

    Args:
        analog: the twin, programmed.
        inputs: a batch (a tensor or a mapping of keyword arguments), or a loader of such, or of tuples that begin with
            them; labels are left out. 64 samples suffice for most networks; of fewer, scales are drawn towards that of
            the whole matrix and offsets towards none, so that 8 rarely do harm; of 1 to 4 answers may be worse than
            without.
        match: ``"moments"``: mean and standard deviation; ``"bias"``: the mean, by an offset alone; ``"scale"``: the
            standard deviation, by a scale alone.

    Returns:
        What was found, what it takes to store and to compute.

    Raises:
        NotProgrammedError, StaleChipError: there is no valid chip.
        BypassedError: no analog layer had a part in the answers.
        ValueError: no inputs, inputs or outputs that are NaN or infinite, or an unknown match. The chip is as before
            then.

    Warns:
        ConversionWarning: some analog layers had no part in the answers, and have no correction.

    Source: means of outputs are corrected after training in Nagel et al., Data-Free Quantization, ICCV (2019), against
    biased errors of quantised weights; means and variances of batch norm on a chip in Joshi et al., Nat. Commun.
    11:2473 (2020). Departure: every matrix, whether batch norm follows or not.

    Example:
        >>> import torch, analogsim
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> analog = analogsim.convert(model, device="pcm").eval()
        >>> analogsim.program(analog, seed=1)
        >>> analogsim.drift(analog, "1y")
        >>> found = analogsim.calibrate_outputs(analog, torch.randn(64, 8))
        >>> found.numbers, found.multiply_adds
        (40, 20)
    """
    whole = isinstance(inputs, Tensor | Mapping)
    refuse_empty(inputs)
    if not whole and not isinstance(inputs, Iterable):
        raise InvalidTypeError(
            "calibrate_outputs: inputs must be a tensor, a mapping of arguments or a loader of batches, got "
            f"{type(inputs).__name__}"
        )
    kept = [inputs] if whole else read_once(cast(Iterable[Any], inputs))
    if isinstance(kept, Iterator):
        told = "calibrate_outputs: inputs can be read only once; give a DataLoader or a list of batches"
        raise InvalidValueError(told)
    place = matrices_of(analog)[0].still()[0].device

    def batches() -> Iterator[Inputs]:
        for number, batch in enumerate(inputs_of(kept, "calibrate_outputs")):
            if is_empty(batch):
                raise InvalidValueError(f"calibrate_outputs: batch {number} of the inputs holds no samples")
            if holds_nonfinite(batch, masks=True):
                raise InvalidValueError(f"calibrate_outputs: batch {number} of the inputs holds NaN or infinite values")
            yield moved(batch, place)

    found, uses = match_outputs(analog, batches, match)
    uses.warn("calibrate_outputs", stacklevel=2)
    return found


@outside_autograd()
def match_outputs(analog: nn.Module, batches: Batches, match: Match) -> tuple[OutputCalibration, Uses]:
    """What `calibrate_outputs` does, and which layers had a part, of which it says nothing yet.

    Args:
        analog: see there.
        batches: where the network is.
        match: see there.
    """
    if match not in get_args(Match):
        raise InvalidValueError(f"calibrate_outputs: match must be one of {', '.join(get_args(Match))}, got {match!r}")
    pairs = layer_chips(analog, "calibrate_outputs")
    uses = Uses([matrix.analog for matrix, _ in pairs])
    beside = [_Beside(matrix, chip, matrix.analog.crossbar) for matrix, chip in pairs]
    with _probed(analog, pairs, match) as probes:
        with as_trained(analog):
            samples, count = 0, 0
            for batch in batches():
                call(analog, batch)
                uses.check("calibrate_outputs")
                samples, count = samples + _samples_in(batch), count + 1
                for probe in probes:
                    probe.end_batch()
            again = _settle_repeated(analog, batches, list(zip(pairs, probes, beside, strict=True)))
        passes = again + _settle(analog, batches, [probe for probe in probes if probe.digital.products], count)
    found = [(matrix, probe) for (matrix, _), probe in zip(pairs, probes, strict=True) if probe.found is not None]
    for matrix, probe in found:
        _check_finite(matrix.analog, probe)
    for (_, chip), probe in zip(pairs, probes, strict=True):
        chip.correction = None if probe.found is None else OutputCorrection(probe.found, chip.time)
    rows = tuple(_told(matrix, probe, samples) for matrix, probe in found)
    return OutputCalibration(match, pairs[0][1].time, samples, passes, rows), uses


def _settle_repeated(
    analog: nn.Module, batches: Batches, all_of: list[tuple[tuple[AnalogMatrix, LayerChip], Probe, _Beside]]
) -> int:
    """Settle what is used several times in a forward, on the inputs of the digital network; how many passes it took."""
    repeated = [(matrix.analog, probe, beside) for (matrix, _), probe, beside in all_of if probe.repeated]
    held = [(matrix.analog, matrix.analog.stages) for (matrix, _), _, _ in all_of]
    if not repeated:
        return 0
    try:
        for state, stages in held:
            state.stages = stages[1:]  # without probes, which have seen the digital network
        for state, _, beside in repeated:
            state.stages = (beside, *state.stages)
        for batch in batches():
            call(analog, batch)
    finally:
        for state, stages in held:
            state.stages = stages
    for _, probe, beside in repeated:
        probe.settle(beside.moments)
    return 1


def _settle(analog: nn.Module, batches: Batches, probes: list[Probe], count: int) -> int:
    """Let the data go through the chip until corrections stay; how often they did."""
    for done in range(1, _PASSES + 1):
        for probe in probes:
            probe.begin(done == 1)
        for batch in batches():
            call(analog, batch)
        moves = torch.stack([probe.end().float().cpu() for probe in probes])
        if moves.max() <= _STILL:
            return done
    return _PASSES


@contextmanager
def _probed(analog: nn.Module, pairs: list[tuple[AnalogMatrix, LayerChip]], match: Match) -> Iterator[list[Probe]]:
    """A probe behind each matrix, in eval mode, before the twin's own stages and in the place of the correction."""
    before = [(matrix.analog, chip, matrix.analog.stages, chip.correction) for matrix, chip in pairs]
    probes = [Probe(matrix.analog.shape[0], match) for matrix, _ in pairs]
    try:
        for (state, chip, stages, _), probe in zip(before, probes, strict=True):
            chip.correction, state.stages = None, (probe, *stages)
        with in_eval(analog):
            yield probes
    finally:
        for state, chip, stages, correction in before:
            chip.correction, state.stages = correction, stages


def _samples_in(batch: Inputs) -> int:
    with suppress(ValueError):
        return samples_in(batch, None)
    return 1


def _check_finite(state: AnalogState, probe: Probe) -> None:
    found = cast(Affine, probe.found)
    for part in (found.scale, found.offset):
        if part is not None and not part.isfinite().all():
            raise InvalidValueError(
                f"calibrate_outputs: layer {state.title!r}: its outputs are NaN or infinite on the chip or in the "
                "digital network; look at what goes in, and at the weights"
            )


def _told(matrix: AnalogMatrix, probe: Probe, samples: int) -> MatrixOutputs:
    scale, offset = _numbers(probe.found, probe.digital.mean)
    size = probe.digital.size
    largest = offset.abs().max() / torch.where(size > 0, size, 1.0)
    values = -(-probe.values // max(1, samples))
    scales = float(scale.min()), float(scale.max())
    return MatrixOutputs(matrix.analog.name, len(scale), values, scales, float(largest))


def output_moments(analog: nn.Module, forward: Callable[[], Any]) -> list[Moments]:
    """Mean and spread of each output of each matrix during a forward, behind the correction of its chip.

    Args:
        analog: the twin, which answers in ``forward``.
        forward: any number of forwards.
    """
    states = [matrix.analog for matrix in matrices_of(analog)]
    before = [state.stages for state in states]
    probes = [Probe(state.shape[0], "moments") for state in states]
    try:
        for state, probe in zip(states, probes, strict=True):
            state.stages = (probe, *state.stages)
        forward()
    finally:
        for state, stages in zip(states, before, strict=True):
            state.stages = stages
    return [probe.digital for probe in probes]


@contextmanager
def kept_corrections(analog: nn.Module) -> Iterator[None]:
    """A block after which each matrix's chip has the correction of outputs that it had before."""
    held = [(chip, chip.correction) for _, chip in layer_chips(analog, "calibrate_outputs")]
    try:
        yield
    finally:
        for chip, correction in held:
            chip.correction = correction


@contextmanager
def aged(analog: nn.Module, t: float | str) -> Iterator[None]:
    """A block in which the programmed chip is ``t`` old, with the kind of gain that it has."""
    held = [(matrix.analog, chip, chip.time) for matrix, chip in layer_chips(analog, "calibrate_outputs")]
    try:
        for state, chip, _ in held:
            chip.set_time(seconds(t), chip.compensation, state.known_bound)
        yield
    finally:
        for state, chip, time in held:
            chip.set_time(time, chip.compensation, state.known_bound)
