"""What every analog layer must hold, as tests: subclass `LayerContract` next to your layer and run pytest."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.outputs import output_moments
from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.stages import Outputs
from analogsim.device.model import Cells, DeviceModel, Effect
from analogsim.devices import Drift, Gaussian, ReadNoise, StuckAt
from analogsim.layers.module import exactly, matrices_of
from analogsim.mapping.mapping import Mapping
from analogsim.noise.sources import Noise
from analogsim.utils.torch_private import tree_leaves, tree_map


@dataclass(frozen=True)
class _Exact(Effect):
    """Programs exactly, and is drawn all the same."""

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        return g.clone()


@dataclass(frozen=True)
class _NoError(_Exact):
    """Weight noise of size zero, which draws nothing, so that dropout draws what it draws in the digital layer."""

    signed: ClassVar[bool] = True

    def error(self, g: Tensor, g_max: Callable[[Tensor], float | Tensor], noise: Noise) -> Tensor:
        return torch.zeros_like(g)


IDEAL = DeviceModel((_Exact(),))
# Through the signal path of the converters, and nothing happens there.
CONVERTED = Crossbar(output_bound=1e9)


class _Looking:
    """A digital stage that does nothing, and has to see each product."""

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        return product

    def folded(self, weight: Tensor, bias: Tensor | None) -> None:
        return None


def _mapped(cells: Any, **more: Any) -> DeviceModel:
    return DeviceModel((_Exact(),), g_min=1.0, mapping=Mapping(cells, "column", **more))


# Where inputs could go another way than through the digital product: each mapping, cut, converter and range once.
_WAYS: dict[str, tuple[DeviceModel, Crossbar]] = {
    "converters": (
        _mapped("pair", slices=3, bias_rows=2),
        Crossbar(dac_bits=8, adc_bits=8, output_noise=0.01, gain_mismatch=0.01, offset_mismatch=0.01),
    ),
    "bits": (_mapped("two-sided"), Crossbar(dac_bits=3, bit_serial=True)),
    "ranges": (
        _mapped("offset", bias_rows=1),
        Crossbar(dac_bits=8, input_range="learned", adc_bits=8, output_bound="calibrated"),
    ),
    "noise": (DeviceModel((ReadNoise(std=0.01),), mapping=Mapping("pair")), Crossbar()),
}


def odd(value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """What a layer may be given instead of a tensor that it takes: other sizes, axes, dtypes, indices; with a name."""
    for axis, size in enumerate(value.shape):
        if size:
            yield f"axis {axis} longer", torch.cat((value, value.narrow(axis, 0, 1)), axis)
            yield f"axis {axis} shorter", value.narrow(axis, 0, size - 1)
            yield f"axis {axis} empty", value.narrow(axis, 0, 0)
    if value.ndim and value.numel():
        yield "an axis less in front", value[0]
        yield "an axis less behind", value[..., 0]
    yield "an axis more in front", value.unsqueeze(0)
    yield "an axis more behind", value.unsqueeze(-1)
    for kind in (torch.float32, torch.float64, torch.int32, torch.int64, torch.bool):
        if value.dtype != kind:
            yield str(kind), value.to(kind)
    if not value.is_floating_point() and value.dtype != torch.bool:
        yield "numbers too high", value + 100_000
        yield "numbers below 0", value - 100_000


def tensors(output: Any) -> list[Tensor]:
    """The floating-point tensors in what a layer answers."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def close(got: Any, wanted: Any, tolerance: float) -> None:
    """Assert that two answers are the same to a relative and absolute tolerance."""
    mine, theirs = tensors(got), tensors(wanted)
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def differ(got: Any, other: Any) -> bool:
    """Whether two answers are not the same to the bit."""
    return not all(map(torch.equal, tensors(got), tensors(other)))


def _exchanged(x: tuple[Any, ...], place: int, other: Tensor) -> tuple[Any, ...]:
    """Arguments with another tensor in one place, counted as `tree_leaves` does."""
    places = itertools.count()
    return cast(tuple[Any, ...], tree_map(lambda leaf: other if next(places) == place else leaf, x))


def _other_outcome(got: Any, wanted: Any) -> bool:
    """Whether one was refused and the other not, or answered in other shapes."""
    if isinstance(got, Exception) or isinstance(wanted, Exception):
        return isinstance(got, Exception) != isinstance(wanted, Exception)
    return bool(got != wanted)


class LayerContract:
    """What every analog layer must hold, as tests.

    Attributes:
        options: more arguments of `convert`, such as ``{"embeddings": True}``.
        cuts: crossbars, ``(rows, cols)``, that the layer is cut over; some smaller than it.
        compiles: whether torch can compile the digital layer into one graph.
        pickles: whether torch can pickle the digital layer.
        computed: whether its weights are computed from other Parameters.
        batch_axis: along which the samples of a batch lie, in the inputs and in the first tensor of the answer.

    Example:
        >>> import torch
        >>> from analogsim.testing import LayerContract
        >>> class TestLinear(LayerContract):
        ...     def layer(self):
        ...         return torch.nn.Linear(4, 3)
        ...     def inputs(self):
        ...         return (torch.randn(5, 4),)
    """

    options: ClassVar[dict[str, Any]] = {}
    cuts: ClassVar[tuple[tuple[int | None, int | None], ...]] = ((None, None), (3, 9))
    compiles: ClassVar[bool] = True
    pickles: ClassVar[bool] = True
    computed: ClassVar[bool] = False
    batch_axis: ClassVar[int] = 0

    def layer(self) -> nn.Module:
        """The digital layer, in training mode."""
        raise NotImplementedError("say how the layer is made")

    def inputs(self) -> tuple[Any, ...]:
        """The arguments of its forward."""
        raise NotImplementedError("say what the layer is called with")

    def convert(self, model: nn.Module, device: Any, **more: Any) -> Any:
        """The twin, with the contract's own options."""
        return analogsim.convert(model, device, **{**self.options, **more})

    @pytest.fixture
    def made(self) -> tuple[nn.Module, tuple[Any, ...]]:
        """Layer and inputs in float64."""
        torch.manual_seed(0)
        model = self.layer().double()

        def wide(value: Any) -> Any:
            return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

        return model, cast(tuple[Any, ...], tree_map(wide, self.inputs()))

    def answer(self, model: nn.Module, x: tuple[Any, ...]) -> Any:
        """What a model answers, with the same random numbers (of dropout) each time."""
        torch.manual_seed(1)
        return model(*x)

    def slopes(self, output: Any, model: nn.Module) -> list[Tensor]:
        """The gradients of a loss over all that is answered."""
        loss = torch.stack([tensor.square().sum() for tensor in tensors(output)]).sum()
        found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return [slope for slope in found if slope is not None]

    @pytest.mark.parametrize("periphery", [Crossbar(), CONVERTED], ids=["ideal", "converted"])
    @pytest.mark.parametrize("cells", ["pair", "two-sided", "offset", "signed"])
    def test_without_noise_it_is_the_digital_layer(self, made: Any, cells: Any, periphery: Crossbar) -> None:
        """In training and on a chip, with its gradients, for every mapping, whatever it is cut into."""
        model, x = made
        wanted = self.answer(model, x)
        slopes = self.slopes(wanted, model)
        exact = self.answer(copy.deepcopy(model).eval(), x)
        kinds = [(1, 1, 0)] if cells == "signed" else [(1, 1, 2), (3, 1, 0), (2, 2, 1)]
        for (slices, copies, bias_rows), (rows, cols) in itertools.product(kinds, self.cuts):
            mapping = Mapping(cells, "column", slices=slices, copies=copies, bias_rows=bias_rows)
            if cells != "signed" and cols is not None:
                cols = max(cols, mapping.cells_per_weight + 1)
            effect = _NoError() if cells == "signed" else _Exact()
            device = DeviceModel((effect,), g_min=0.0 if cells == "signed" else 1.0, mapping=mapping)
            analog = self.convert(model, device, crossbar=periphery.replace(rows=rows, cols=cols)).train()
            got = self.answer(analog, x)
            close(got, wanted, 1e-10)
            close(self.slopes(got, model), slopes, 1e-8)
            analogsim.program(analog)
            close(self.answer(analog.eval(), x), exact, 1e-10)
            if not self.computed:
                close(self.answer(analogsim.to_digital(analog, "programmed"), x), exact, 1e-10)

    def outcome(self, model: nn.Module, x: tuple[Any, ...]) -> Any:
        """Shapes and dtypes of what a model answers, or the error that it raises."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return [(tensor.shape, tensor.dtype) for tensor in tensors(self.answer(model, x))]
            except Exception as error:
                return error

    def strange(self, x: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Arguments as those of `inputs` but for one tensor: by default each that holds numbers, and the first.

        Leave out what torch's own kernels take without looking, such as offsets in the middle of a list.
        """
        for place, leaf in enumerate(tree_leaves(x)):
            if isinstance(leaf, Tensor) and (leaf.is_floating_point() or not place):
                for name, other in odd(leaf):
                    yield f"input {place}, {name}", _exchanged(x, place, other)

    def test_it_takes_what_the_digital_layer_takes(self, made: Any) -> None:
        """Whatever that refuses is refused, and whatever it answers has the same shape, in training and on a chip."""
        model, x = made
        digital = {mode: copy.deepcopy(model).train(mode) for mode in (True, False)}
        strange = [
            (name, other, {mode: self.outcome(digital[mode], other) for mode in digital})
            for name, other in self.strange(x)
        ]
        wrong = []
        for way, (device, crossbar) in _WAYS.items():
            rows, cols = self.cuts[-1]
            cols = None if cols is None else max(cols, device.laid.cells_per_weight + 1)
            analog = self.convert(model, device, crossbar=crossbar.replace(rows=rows, cols=cols))
            analogsim.calibrate(analog, [(x,)])
            analogsim.program(analog)
            for mode, (name, other, wanted) in itertools.product(digital, strange):
                got = self.outcome(analog.train(mode), other)
                if _other_outcome(got, wanted[mode]):
                    where = "in training" if mode else "on a chip"
                    wrong.append(f"{way}, {where}, {name}: {got!r}, the digital layer {wanted[mode]!r}")
            for name, other, wanted in strange if way == "ranges" else ():
                if isinstance(wanted[False], Exception) and not self._is_refused_by_calibrate(analog, other):
                    wrong.append(f"calibrate takes it, {name}: the digital layer {wanted[False]!r}")
        assert not wrong, "\n".join(wrong)

    def _is_refused_by_calibrate(self, analog: nn.Module, x: tuple[Any, ...]) -> bool:
        try:
            analogsim.calibrate(analog, [(x,)])
        except Exception:
            return True
        return False

    @pytest.mark.parametrize("source", ["read noise", "read noise behind converters", "output noise"])
    @pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
    def test_each_sample_has_noise_of_its_own(self, made: Any, source: str, mode: bool) -> None:
        """Two equal samples of one batch get answers that differ by what is new in every use."""
        model, x = made
        axis = self.batch_axis
        sizes = [leaf.shape[axis] for leaf in tree_leaves(x) if isinstance(leaf, Tensor) and leaf.ndim > axis]
        size = sizes[0] if sizes else 1

        def twice(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.ndim <= axis or value.shape[axis] != size:
                return value
            return value.narrow(axis, 0, 1).repeat_interleave(size, axis)

        same = cast(tuple[Any, ...], tree_map(twice, x))
        clean = tensors(self.answer(model.train(mode), same))[0]
        if size < 2 or clean.ndim <= axis or clean.shape[axis] != size or not self._alike(clean, axis):
            pytest.skip("no batch of equal samples")
        noisy = ReadNoise(std=0.01) if "read" in source else _Exact()
        periphery = Crossbar() if source == "read noise" else CONVERTED
        crossbar = Crossbar(output_noise=0.01) if source == "output noise" else periphery
        analog = self.convert(model, DeviceModel((noisy,)), crossbar=crossbar).train(mode)
        analogsim.program(analog)
        got = tensors(self.answer(analog, same))[0]
        assert not self._alike(got, axis, 1e-9)

    def _alike(self, answer: Tensor, axis: int, tolerance: float = 1e-12) -> bool:
        """Whether the first two samples of an answer are the same."""
        one, other = answer.narrow(axis, 0, 1), answer.narrow(axis, 1, 1)
        return torch.allclose(one, other, rtol=0, atol=tolerance)

    def test_training_draws_anew_and_the_gradient_lands_on_the_clean_weights(self, made: Any) -> None:
        """A fresh draw in each forward, steered by torch's seed; none at scale 0; Parameters are not written to."""
        model, x = made
        before = {name: value.clone() for name, value in model.state_dict().items() if "running" not in name}
        analog = self.convert(model, Gaussian(std=0.05))
        torch.manual_seed(2)
        first = analog(*x)
        assert differ(analog(*x), first)
        torch.manual_seed(2)
        assert not differ(analog(*x), first)
        torch.stack([tensor.square().sum() for tensor in tensors(first)]).sum().backward()  # type: ignore[no-untyped-call]
        assert all(slope is not None for slope in (parameter.grad for parameter in model.parameters()))
        if not self.computed:
            assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
        analogsim.set_noise_scale(analog, 0.0)
        close(self.answer(analog, x), self.answer(model, x), 1e-10)

    def test_a_chip_is_one_chip(self, made: Any) -> None:
        """The same seed and time give the same answer; without a chip, or with other weights, there is an error."""
        model, x = made
        analog = self.convert(model, "pcm")
        analog.eval()
        with pytest.raises(analogsim.NotProgrammedError):
            analog(*x)
        answers = []
        for seed, time in ((1, "1s"), (2, "1s"), (1, "1y"), (1, "1s")):
            analogsim.program(analog, seed)
            analogsim.drift(analog, time)
            answers.append(self.answer(analog, x))
        assert not differ(answers[0], answers[3])
        assert differ(answers[0], answers[1])
        assert differ(answers[0], answers[2])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5).add_(0.01)
        with pytest.raises(analogsim.StaleChipError):
            analog(*x)

    def test_outputs_of_a_chip_are_matched_to_the_digital_ones(self, made: Any) -> None:
        """`calibrate_outputs` reaches every matrix: the mean of each output is the digital one, its spread is nearer.

        To a twentieth of the spread. What a forward uses several times is matched on the inputs of the digital network,
        and comes nearer to it on its own. On an ideal device nothing is corrected.
        """
        model, x = made
        analog = self.convert(model, DeviceModel((Drift(nu=0.05, nu_std=0.03), StuckAt(p_off=0.05)))).eval()
        analogsim.program(analog, seed=5)
        analogsim.drift(analog, "1y")
        with torch.no_grad(), exactly(analog):
            digital = output_moments(analog, lambda: self.answer(analog, x))
        seen = min(int(each.vectors.min()) for each in digital)
        batches = [(x,)] * (1 + 63 // max(1, seen))  # of fewer than 64 vectors not every scale is believed
        apart = []
        for calibrated in (False, True):
            if calibrated:
                assert len(analogsim.calibrate_outputs(analog, batches).matrices) == len(digital)
            with torch.no_grad():
                chip = output_moments(analog, lambda: self.answer(analog, x))
            pairs = list(zip(chip, digital, strict=True))
            apart.append(
                [
                    ((one.mean - other.mean).norm(), (one.variance.sqrt() - other.variance.sqrt()).norm())
                    for one, other in pairs
                ]
            )
        for one, other, before, after in zip(chip, digital, *apart, strict=True):
            spread = other.variance.mean().sqrt()
            nearer = [now <= then + 0.05 * spread + 1e-6 for now, then in zip(after, before, strict=True)]
            exact = ((one.mean - other.mean).abs() <= 0.05 * spread + 1e-6).all()
            assert all(nearer)
            assert exact or other.products > 1
        ideal = self.convert(model, IDEAL).eval()
        analogsim.program(ideal)
        answer = self.answer(ideal, x)
        for row in analogsim.calibrate_outputs(ideal, batches[:1]).matrices:
            assert row.scales == pytest.approx((1, 1), abs=1e-6)
            assert row.offset < 1e-6
        close(self.answer(ideal, x), answer, 1e-6)

    def test_adapters_are_behind_every_matrix_and_trained_alone(self, made: Any) -> None:
        """`add_adapters` changes nothing at first; what is trained gets gradients, and nothing else does.

        What torch's fused kernels make of it is what the digital part makes of the products.
        """
        model, x = made
        analog = self.convert(model, DeviceModel((Drift(nu=0.05, nu_std=0.03), StuckAt(p_off=0.05)))).eval()
        analogsim.program(analog, seed=5)
        wanted = self.answer(analog, x)
        assert len(analogsim.add_adapters(analog, rank=1).matrices) == len(matrices_of(analog))
        close(self.answer(analog, x), wanted, 1e-12)
        parameters = analogsim.adapter_parameters(analog)
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(torch.linspace(0.02, 0.1, parameter.numel(), dtype=parameter.dtype).view_as(parameter))
        wants = [parameter.requires_grad for parameter in model.parameters()]
        model.requires_grad_(False)
        output = self.answer(analog, x)
        assert differ(output, wanted)
        torch.stack([tensor.square().sum() for tensor in tensors(output)]).sum().backward()  # type: ignore[no-untyped-call]
        for parameter, wanted_grad in zip(model.parameters(), wants, strict=True):
            assert parameter.grad is None
            parameter.requires_grad_(wanted_grad)
        assert all(parameter.grad is not None for parameter in parameters)
        states = [matrix.analog for matrix in matrices_of(analog)]
        for state in states:
            state.stages = (_Looking(),)
        close(self.answer(analog, x), output, 1e-10)
        for state in states:
            state.stages = ()
        analogsim.remove_adapters(analog)
        close(self.answer(analog, x), wanted, 1e-12)

    def test_read_noise_is_new_in_each_use(self, made: Any) -> None:
        """On a chip and behind converters, and around the answer without it."""
        model, x = made
        for crossbar in (Crossbar(), CONVERTED):
            analog = self.convert(model, ReadNoise(std=0.01), crossbar=crossbar)
            analogsim.program(analog)
            analog.eval()
            uses = [tensors(self.answer(analog, x)) for _ in range(2)]
            assert differ(*uses)

    def test_copies_files_and_state(self, made: Any, tmp_path: Path) -> None:
        """A chip survives copies, pickle and its file; state dicts load strictly both ways."""
        model, x = made
        analog = self.convert(model, "pcm")
        analogsim.program(analog, seed=1)
        analogsim.drift(analog, "1d")
        wanted = self.answer(analog.eval(), x)
        copies = [copy.deepcopy(analog), *([pickle.loads(pickle.dumps(analog))] if self.pickles else [])]
        for again in copies:
            close(self.answer(again, x), wanted, 1e-12)
        analogsim.save_chip(analog, tmp_path / "chip.safetensors")
        analogsim.erase(analog)
        analogsim.load_chip(analog, tmp_path / "chip.safetensors")
        close(self.answer(analog, x), wanted, 1e-12)
        assert list(analog.state_dict()) == list(model.state_dict())
        analog.load_state_dict(copy.deepcopy(model).state_dict(), strict=True)
        copy.deepcopy(model).load_state_dict(analog.state_dict(), strict=True)

    def test_and_back(self, made: Any) -> None:
        """The digital layer over the very same Parameters; or one with what the chip holds."""
        model, x = made
        analog = self.convert(model, "pcm")
        plain = analogsim.to_digital(analog)
        assert [type(module) for module in plain.modules()] == [type(module) for module in model.modules()]
        assert all(one is other for one, other in zip(plain.parameters(), model.parameters(), strict=True))
        analogsim.program(analog, seed=4)
        analogsim.drift(analog, "1d")
        if not self.computed:
            programmed = analogsim.to_digital(analog.eval(), "programmed")
            close(self.answer(programmed, x), self.answer(analog, x), 1e-10)

    def test_every_matrix_carries_and_is_told(self, made: Any) -> None:
        """None is analog in name only; `summary` counts every Parameter once."""
        model, x = made
        analog = self.convert(model, "pcm")
        analogsim.audit(analog, *x).check()
        found = analogsim.summary(analog)
        assert sum(row.parameters for row in found.rows) == sum(tensor.numel() for tensor in model.parameters())
        assert sum(row.analog for row in found.rows) == len(matrices_of(analog))

    @pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
    def test_compiled_it_is_one_graph(self, made: Any, mode: bool) -> None:
        """No graph break of its own."""
        if not self.compiles:
            pytest.skip("torch cannot compile the digital layer into one graph")
        model, x = made
        analog = self.convert(model, IDEAL).train(mode)
        analogsim.program(analog)
        torch.compiler.reset()
        compiled = torch.compile(analog, fullgraph=True, backend="aot_eager")
        close(self.answer(cast(nn.Module, compiled), x), self.answer(analog, x), 1e-10)

    @pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
    def test_other_dtypes(self, made: Any, kind: torch.dtype) -> None:
        """Answers have the dtype of the digital layer's, and are near them."""
        model, x = made
        narrow = tree_map(lambda v: v.to(kind) if isinstance(v, Tensor) and v.is_floating_point() else v, x)
        model = model.to(kind)
        analog = self.convert(model, IDEAL)
        analogsim.program(analog)
        got, wanted = self.answer(analog.eval(), narrow), self.answer(model.eval(), narrow)
        assert [tensor.dtype for tensor in tensors(got)] == [tensor.dtype for tensor in tensors(wanted)]
        close(got, wanted, 0.1 if kind is torch.bfloat16 else 1e-3)

    def test_under_autocast(self, made: Any) -> None:
        """As the digital layer under the same autocast, in dtype and, nearly, in value."""
        model, x = made
        narrow = tree_map(lambda v: v.float() if isinstance(v, Tensor) and v.is_floating_point() else v, x)
        model = model.float()
        analog = self.convert(model, IDEAL)
        with torch.autocast("cpu", torch.bfloat16):
            got, wanted = self.answer(analog, narrow), self.answer(model, narrow)
        assert [tensor.dtype for tensor in tensors(got)] == [tensor.dtype for tensor in tensors(wanted)]
        close(got, wanted, 0.1)
