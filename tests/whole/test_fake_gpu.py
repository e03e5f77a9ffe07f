"""Tensors on "cuda" where there is no GPU: nothing meets the CPU, nothing waits, what CUDA graphs need.

Fake tensors (`torch._subclasses.FakeTensorMode`) have a shape, a dtype and a device, and no values. So this file
shows, on any machine, where each tensor of a forward, a backward or a compiled graph lies, and that no operation asks
for a value; ``test_gpu.py`` shows, where there is a GPU, that the values there are right: the same chip, the same
wires, fresh noise in each replay of a CUDA graph.

Stand-ins for what torch has only with a driver: the engine that walks the autograd graph (`walked`; the nodes are
torch's own), generators on "cuda", autocast's question whether there is a GPU; and the shapes of what the kernels of a
GRU's cell give (`gru_cell`), which torch knows from 2.15 on and before that asks the GPU for. cuDNN is off, so that
recurrent layers take torch's own kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._functorch.partitioners import default_partition
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.autograd.graph import get_gradient_edge
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import analogsim
import analogsim.chip.file
from analogsim import Crossbar, DeviceModel, Mapping
from analogsim.layers.module import matrices_of
from analogsim.noise import StreamNoise
from analogsim.utils import tensor_files

# Where the memory of a fake tensor lies is asked by chips (whether the weights changed), and means nothing.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")

aten = torch.ops.aten


# --- stand-ins ------------------------------------------------------------------------------------------------------


def places(values: Any) -> set[str]:
    """The kinds of torch device on which the tensors among values lie."""
    return {leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


class Apart(TorchDispatchMode):
    """Raises where one operation has tensors on "cuda" and elsewhere: scalars and copies, which wait, included.

    Args:
        copies: let tensors be copied to "cuda", as programming a chip does.
        waits: let "cuda" be asked whether something holds, as programming does; it always does. They are counted.
    """

    def __init__(self, *, copies: bool = False, waits: bool = False) -> None:
        super().__init__()
        self.copies = copies
        self.waits = waits
        self.waited = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See the class."""
        if self.waits and func in (aten.equal.default, aten._local_scalar_dense.default) and "cuda" in places(args):
            self.waited += 1
            return True
        output = func(*args, **(kwargs or {}))
        found = places((args, kwargs)) | places(output)
        moving = self.copies and func is aten._to_copy.default and places(output) == {"cuda"}
        if len(found) > 1 and not moving:
            raise RuntimeError(f"{func} has tensors on {' and '.join(sorted(found))}")
        return output


def stepped(node: Any, got: Sequence[Tensor | None]) -> Iterator[tuple[tuple[Any, int], Tensor | None]]:
    """What a node of the graph hands on, and where to."""
    if isinstance(node, torch.autograd.function.BackwardCFunction):  # written in Python: one answer for each argument
        answers = [slope for slope, wanted in zip(node.apply(*got), node.needs_input_grad, strict=True) if wanted]
        return zip((following for following in node.next_functions if following[0] is not None), answers, strict=True)
    back = node(*got)
    return zip(node.next_functions, back if isinstance(back, tuple) else (back,), strict=True)


def walked(
    outputs: Sequence[Tensor],
    slopes: Sequence[Tensor | None],
    keep_graph: bool,
    create_graph: bool,
    inputs: Sequence[Tensor] = (),
    allow_unreachable: bool = False,
    accumulate_grad: bool = False,
) -> tuple[Tensor | None, ...]:
    """What ``torch.autograd``'s engine answers, which on "cuda" asks the driver for streams; its arguments."""

    def edge(tensor: Tensor) -> tuple[Any, int]:
        found = get_gradient_edge(tensor)
        return found.node, found.output_nr

    wanted = [edge(tensor) for tensor in inputs]
    ends = {node for node, _ in wanted}
    order: list[Any] = []  # each node behind all that it leads to
    seen: set[Any] = set()
    todo = [(edge(tensor)[0], False) for tensor in outputs]
    while todo:
        node, after = todo.pop()
        if after:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            todo += [(node, True), *((child, False) for child, _ in node.next_functions if child is not None)]
    leading: set[Any] = set()
    for node in order:
        if not wanted or any(child in ends or child in leading for child, _ in node.next_functions):
            leading.add(node)
    arrived: dict[Any, Tensor] = {}

    def arrive(node: Any, place: int, slope: Tensor | None) -> None:
        if node is None or slope is None:
            return
        meta = node._input_metadata[place]
        if slope.device != meta.device:
            raise RuntimeError(f"{node.name()} wants a gradient on {meta.device}, got one on {slope.device}")
        slope = slope.sum_to_size(tuple(meta.shape)).to(meta.dtype)
        arrived[node, place] = arrived[node, place] + slope if (node, place) in arrived else slope

    with torch.set_grad_enabled(create_graph):
        for tensor, slope in zip(outputs, slopes, strict=True):
            arrive(*edge(tensor), slope)
        for node in reversed(order):
            got = [arrived.get((node, place)) for place in range(len(node._input_metadata))]
            leaf = getattr(node, "variable", None)
            if all(slope is None for slope in got):
                continue
            if leaf is not None:
                if accumulate_grad and (not wanted or node in ends):
                    leaf.grad = got[0] if leaf.grad is None else leaf.grad + got[0]
            elif node in leading:
                for (child, place), slope in stepped(node, got):
                    arrive(child, place, slope)
    return tuple(arrived.get(found) for found in wanted)


def generator_of(stream: StreamNoise, device: torch.device) -> torch.Generator:
    """Fake tensors hold no numbers, so that any generator will do; a stream must ask for one on its tensor's device."""
    assert device.type == "cuda"
    return torch.Generator("cpu")


def gru_cell(
    driven: Tensor, fed: Tensor, state: Tensor, input_bias: Tensor | None = None, hidden_bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The new state and what backward needs of each unit: three gates, the state, the fed part of the new one."""
    assert driven.shape == fed.shape == (state.shape[0], 3 * state.shape[1])
    return state.new_empty(state.shape), state.new_empty(state.shape[0], 5 * state.shape[1])


def gru_cell_backward(slope: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor | None, ...]:
    """Of both products, the state, both biases."""
    units = slope.shape[1]
    assert kept.shape == (slope.shape[0], 5 * units)
    gates = [kept.new_empty(slope.shape[0], 3 * units) for _ in range(2)]
    return *gates, slope.new_empty(slope.shape), *(kept.new_empty(3 * units) if has_bias else None for _ in range(2))


# Only where torch has none of its own. A library's kernels go with it.
META = torch.library.Library("aten", "IMPL")
for _name, _kernel in (("_thnn_fused_gru_cell", gru_cell), ("_thnn_fused_gru_cell_backward", gru_cell_backward)):
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{_name}", "Meta"):
        META.impl(_name, _kernel, "Meta")


@contextmanager
def gpu() -> Iterator[None]:
    """A machine with a GPU, on which tensors have no values. Models are made before, and move there."""
    cudnn = torch.backends.cudnn.enabled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "_engine_run_backward", walked)
        patch.setattr(StreamNoise, "_generator", generator_of)
        try:
            torch.backends.cudnn.enabled = False
            with FakeTensorMode(allow_non_fake_inputs=True):
                yield
        finally:
            torch.backends.cudnn.enabled = cudnn


@contextmanager
def autocast(dtype: torch.dtype) -> Iterator[None]:
    """``torch.autocast("cuda", dtype)``, which switches itself off where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


def test_the_walk_is_torchs_own_backward() -> None:
    """The gradients of torch's engine, of all kinds of paths: shared, broadcast, unused, a class with its own rule."""
    torch.manual_seed(0)
    x, w, b = (torch.randn(shape, requires_grad=True) for shape in ((3, 4), (4, 4), (4,)))
    inner = (x @ w + b).relu()
    y, z = inner @ w, (torch.nn.functional.layer_norm(inner, (4,)) * b).unbind(0)[1].exp()
    kept = [torch.randn_like(y), torch.randn_like(z)]
    for inputs in ((x, w, b), (inner,), (w,)):
        wanted = torch.autograd.grad((y, z), inputs, kept, retain_graph=True)
        got = walked((y, z), kept, True, False, inputs)
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other)
    wanted = torch.autograd.grad((y, z), (x, w, b), kept, retain_graph=True)
    walked((y, z), kept, True, False, accumulate_grad=True)
    torch.testing.assert_close([x.grad, w.grad, b.grad], list(wanted))


def test_mixing_and_waiting_are_seen() -> None:
    with gpu(), Apart():
        there, here = torch.randn(3, device="cuda"), torch.randn(3)
        with pytest.raises(RuntimeError, match=r"two (different )?devices"):
            there + here
        for mix in (
            lambda: there * torch.randn(()),
            lambda: there[[0, 2]],
            lambda: there.new_tensor([1.0, 2.0]),
            lambda: here.to(there),
            lambda: there.cpu(),
        ):
            with pytest.raises(RuntimeError, match="has tensors on cpu and cuda"):
                mix()
        with pytest.raises(DataDependentOutputException):
            there.sum().item()


# --- training -------------------------------------------------------------------------------------------------------

Made = tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]

LAYERS: dict[str, Made] = {
    "linear": (lambda: nn.Linear(6, 4), ((5, 6),)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 2), ((2, 3, 5),)),
    "conv2d grouped": (lambda: nn.Conv2d(4, 4, 2, groups=2), ((2, 4, 4, 4),)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), ((2, 2, 3, 3, 3),)),
    "conv transpose1d": (lambda: nn.ConvTranspose1d(4, 3, 2), ((2, 4, 4),)),
    "conv transpose2d grouped": (lambda: nn.ConvTranspose2d(4, 4, 2, groups=2), ((2, 4, 3, 3),)),
    "conv transpose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), ((2, 2, 3, 3, 3),)),
    "attention": (lambda: nn.MultiheadAttention(8, 2), ((4, 2, 8),) * 3),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 12), ((4, 2, 8),)),
    "rnn": (lambda: nn.RNN(5, 4), ((3, 2, 5),)),
    "lstm": (lambda: nn.LSTM(5, 4, bidirectional=True, proj_size=3), ((3, 2, 5),)),
    "gru": (lambda: nn.GRU(5, 4), ((3, 2, 5),)),
    "rnn cell": (lambda: nn.RNNCell(5, 4), ((2, 5),)),
    "lstm cell": (lambda: nn.LSTMCell(5, 4), ((2, 5),)),
    "gru cell": (lambda: nn.GRUCell(5, 4), ((2, 5),)),
    "embedding": (lambda: nn.Embedding(9, 4, padding_idx=0), ((2, 3),)),
    "bag": (lambda: nn.EmbeddingBag(9, 4), ((2, 3),)),
    "bilinear": (lambda: nn.Bilinear(3, 4, 2), ((5, 3), (5, 4))),
}
DIFFERENT = ("linear", "conv2d grouped", "embedding")

PCM = analogsim.as_device_model("pcm")
SLICED = PCM.replace(mapping=Mapping("offset", "crossbar", slices=2, bias_rows=1), name="sliced")
SATURATED = PCM.replace(mapping=Mapping("two-sided", "column", slices=2, percentile=99.0), name="saturated")
STUCK = DeviceModel(
    (*analogsim.as_device_model("stuck-at").effects, *PCM.effects), mapping=Mapping(slices=2), name="stuck"
)
LEARNED = Crossbar(
    rows=3,
    dac_bits=6,
    adc_bits=6,
    input_range="learned",
    output_bound="calibrated",
    output_noise=0.04,
    gain_mismatch=0.01,
    offset_mismatch=0.01,
)

HARDWARE: dict[str, tuple[DeviceModel, Crossbar | str]] = {
    "ideal": (PCM, "ideal"),
    "learned": (PCM, LEARNED),
    "blocks": (PCM, Crossbar(rows=3, cols=6)),
    "standard": (PCM, "standard"),
    "fixed": (PCM, "standard(input_range=2.0, rows=3)"),
    "bound": (PCM, Crossbar(output_bound=4.0)),
    "serial": (PCM, Crossbar(dac_bits=3, adc_bits=6, output_bound=4.0, bit_serial=True)),
    "wires": (PCM, Crossbar(rows=4, cols=8, wire_resistance=1.0)),
    "offset wires": (SLICED, Crossbar(rows=4, cols=8, wire_resistance=1.0)),
    "sliced": (SLICED, "ideal"),
    "sliced serial": (SLICED, Crossbar(rows=3, dac_bits=3, adc_bits=6, bit_serial=True)),
    "saturated": (SATURATED, Crossbar(rows=3)),
    "stuck": (STUCK, "standard(rows=3)"),
}


def input_of(layer: str) -> tuple[Tensor, ...]:
    shapes = LAYERS[layer][1]
    if layer in ("embedding", "bag"):
        return tuple(torch.randint(9, shape, device="cuda") for shape in shapes)
    return tuple(torch.randn(shape, device="cuda") for shape in shapes)


def with_ranges(analog: nn.Module, value: float = 2.0) -> None:
    """Ranges for all converters that leave them to calibration, which reads values."""
    wanted: dict[str, dict[str, Tensor]] = {}
    for matrix in matrices_of(analog):
        crossbar = matrix.analog.crossbar
        kinds = {"input_range": crossbar.needs_range, "output_bound": crossbar.needs_bound}
        wanted[matrix.analog.name] = {kind: torch.tensor(value) for kind, needed in kinds.items() if needed}
    analogsim.set_ranges(analog, wanted)


def floats(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def loss_of(output: Any) -> Tensor:
    return torch.stack([leaf.float().square().sum() for leaf in floats(output)]).sum()


def learned_ranges(analog: nn.Module) -> list[Tensor]:
    """Those that get gradients: of tables the input range plays no part."""
    matrices = [matrix for matrix in matrices_of(analog) if not getattr(matrix, "stored", False)]
    return [matrix.analog.input_range for matrix in matrices if matrix.analog.input_range is not None]


def check_training(model: nn.Module, analog: nn.Module, x: tuple[Tensor, ...]) -> None:
    """One step without a meeting of "cuda" and CPU and without a wait; everything is on "cuda" then."""
    with Apart():
        output = analog(*x)
        loss_of(output).backward()
    trained = [*model.parameters(), *learned_ranges(analog)]
    assert all(tensor.grad is not None for tensor in trained)
    assert places(output) == places([tensor.grad for tensor in trained]) == {"cuda"}


@pytest.mark.parametrize(
    ("layer", "hardware"),
    [
        *((layer, hardware) for layer in LAYERS for hardware in ("ideal", "learned")),
        *((layer, hardware) for layer in DIFFERENT for hardware in list(HARDWARE)[2:]),
        *((layer, hardware) for layer in ("attention", "lstm") for hardware in ("fixed", "serial", "stuck")),
    ],
)
def test_layers_train(layer: str, hardware: str) -> None:
    device, crossbar = HARDWARE[hardware]
    model = LAYERS[layer][0]()
    analog = analogsim.convert(model, device, crossbar=crossbar, embeddings=True)
    with gpu():
        model.to("cuda")
        with_ranges(analog)
        check_training(model, analog, input_of(layer))


NETWORK = (lambda: nn.Sequential(nn.Conv2d(2, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)), (5, 2, 3, 3))


@pytest.mark.parametrize("crossbar", ["ideal", "standard(rows=3)"])
@pytest.mark.parametrize("device", analogsim.available_devices())
def test_devices_train(device: str, crossbar: str) -> None:
    model = NETWORK[0]()
    analog = analogsim.convert(model, device, crossbar=crossbar)
    with gpu():
        model.to("cuda")
        check_training(model, analog, (torch.randn(NETWORK[1], device="cuda"),))


@pytest.mark.parametrize(("dtype", "hardware"), [(torch.bfloat16, "ideal"), (torch.float16, "learned")])
@pytest.mark.parametrize("layer", ["linear", "conv2d grouped", "encoder", "lstm", "gru cell", "embedding", "bilinear"])
def test_layers_train_under_autocast(layer: str, dtype: torch.dtype, hardware: str) -> None:
    """Where torch's kernels get the drawn weights, outputs have the dtype of the digital layer's."""
    device, crossbar = HARDWARE[hardware]
    model = LAYERS[layer][0]()
    analog = analogsim.convert(model, device, crossbar=crossbar, embeddings=True)
    with gpu():
        model.to("cuda")
        with_ranges(analog)
        x = input_of(layer)
        with autocast(dtype):
            check_training(model, analog, x)
            if crossbar == "ideal":
                assert [leaf.dtype for leaf in floats(analog(*x))] == [leaf.dtype for leaf in floats(model(*x))]


@pytest.mark.parametrize("hardware", ["ideal", "learned", "serial"])
@pytest.mark.parametrize("layer", ["linear", "conv2d grouped", "attention", "lstm", "embedding"])
def test_adapters_train(layer: str, hardware: str) -> None:
    """Under fresh draws of one age, with vectors for several; what is folded for torch's kernels too."""
    device, crossbar = HARDWARE[hardware]
    model = LAYERS[layer][0]()
    analog = analogsim.convert(model, device, crossbar=crossbar, embeddings=True)
    analogsim.set_train_times(analog, ("1d",))
    with gpu():
        model.to("cuda")
        with_ranges(analog)
        analogsim.add_adapters(analog, 2, ages=("1h", "1y"))
        check_training(model, analog, input_of(layer))
        parameters = analogsim.adapter_parameters(analog)
        assert places(parameters) == places([value.grad for value in parameters]) == {"cuda"}


# --- chips ----------------------------------------------------------------------------------------------------------


def held(analog: nn.Module) -> list[Any]:
    """All tensors of the chips of a twin."""
    found: list[Any] = []
    for matrix in matrices_of(analog):
        chip: Any = matrix.analog.chip
        array = chip.array
        found += [
            *chip.effective,
            chip.source,
            chip.written.largest,
            chip.written.cells.target,
            chip.written.programmed,
        ]
        found += [drawn for state in chip.written.drawn for drawn in state.values()]
        found += [] if array is None else [array.slices, array.scale, array.variances, *array.converter_errors.values()]
    return found


@pytest.mark.parametrize("crossbar", ["ideal", LEARNED], ids=["ideal", "learned"])
@pytest.mark.parametrize("device", ["gaussian", "pcm", "reram-wan2022", "stuck-at", "read-noise"])
@pytest.mark.parametrize("order", ["programmed there", "programmed here"])
def test_a_chip_lives_on_the_gpu(order: str, device: str, crossbar: Any) -> None:
    """Programming copies its draws there and asks once for each layer, whether its weights are finite.

    A drift with gains asks once for each, whether those are.

    The first forward asks once more, whether they still are what was programmed; the others neither copy nor ask.
    """
    model = NETWORK[0]()
    analog = analogsim.convert(model, device, crossbar=crossbar)
    if order == "programmed here":
        analogsim.program(analog, seed=1)
    with gpu():
        model.to("cuda")
        assert analog[0].weight is model[0].weight
        assert places(list(analog.parameters())) == {"cuda"}
        with_ranges(analog)
        x = torch.randn(NETWORK[1], device="cuda")
        with Apart(copies=True, waits=True) as watch:
            if order == "programmed there":
                analogsim.program(analog, seed=1)
                assert watch.waited == 2  # one question for each layer
            analogsim.drift(analog, "1h")
            assert places(held(analog)) == {"cuda"}
            analog.eval()
            before = watch.waited
            analog(x)
            assert watch.waited == before + 2
        with Apart():
            assert places(analog(x)) == {"cuda"}
        analogsim.erase(analog)
        analog.train()
        check_training(model, analog, (x,))


@contextmanager
def opened(path: Path, framework: str) -> Iterator[Any]:
    """``safe_open``, which cannot make fake tensors."""
    with unset_fake_temporarily(), safe_open(path, framework=framework) as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    yield SimpleNamespace(metadata=lambda: metadata, keys=tensors.keys, get_tensor=tensors.__getitem__)


def test_a_chip_comes_from_a_file_to_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of converters too: left on the CPU, each forward would copy them, and wait."""
    model = NETWORK[0]()
    analog = analogsim.convert(model, "pcm", crossbar=LEARNED)
    with_ranges(analog)
    analogsim.program(analog, seed=1)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    monkeypatch.setattr(tensor_files, "safe_open", opened)
    with gpu():
        model.to("cuda")
        x = torch.randn(NETWORK[1], device="cuda")
        analog.eval()
        with Apart(copies=True, waits=True):
            analogsim.load_chip(analog, tmp_path / "chip.safetensors")
            analog(x)
        with Apart():
            assert places(analog(x)) == {"cuda"}


def test_ranges_from_before_the_move_are_used_and_learned() -> None:
    """They stay where they were, as an optimizer knows them, and are copied in each forward."""
    model = NETWORK[0]()
    analog = analogsim.convert(model, "pcm", crossbar=LEARNED)
    with_ranges(analog)
    with gpu():
        model.to("cuda")
        output = analog(torch.randn(NETWORK[1], device="cuda"))
        loss_of(output).backward()
    assert places(output) == places([parameter.grad for parameter in model.parameters()]) == {"cuda"}
    assert all(value.grad is not None and value.grad.device == value.device for value in learned_ranges(analog))


# --- compiled graphs ------------------------------------------------------------------------------------------------


class Graphs:
    """A compiler that keeps the graphs it gets and runs them as they are.

    Attributes:
        joint: forward and backward in one, of each compilation.
        forward: the forward alone, with what it keeps for backward among its outputs.
    """

    def __init__(self) -> None:
        self.joint: list[torch.fx.GraphModule] = []
        self.forward: list[torch.fx.GraphModule] = []
        self.backend = aot_autograd(
            fw_compiler=self._forward, inference_compiler=self._forward, partition_fn=self._partition
        )

    def _forward(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.forward.append(graph)
        return make_boxed_func(graph.forward)

    def _partition(self, graph: torch.fx.GraphModule, inputs: Any, **more: Any) -> Any:
        self.joint.append(graph)
        return default_partition(graph, inputs, **more)


# What asks "cuda" for values, by the marks that torch gives its operations.
ASKING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


def faults_of(graph: torch.fx.GraphModule) -> list[str]:
    """What keeps a graph out of CUDA graphs: CPU tensors and numbers as inputs, waits, inputs that are written to."""
    found = []
    for node in graph.graph.nodes:
        value = getattr(graph, node.target) if node.op == "get_attr" else node.meta.get("val")
        leaves = [] if node.op == "output" else tree_leaves(value)
        if places(leaves) - {"cuda"}:
            found.append(f"{node.name} is not on cuda")
        if node.op == "placeholder" and not isinstance(value, Tensor):
            found.append(f"{node.name} is a number")
        if isinstance(node.target, torch._ops.OpOverload):
            if any(tag in node.target.tags for tag in ASKING):
                found.append(f"{node.name} waits")
            if node.target._schema.is_mutable:
                found.append(f"{node.name} writes into its arguments")
    return found


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


COMPILED: dict[str, tuple[Any, Any]] = {
    "gaussian": ("gaussian", "ideal"),
    "pcm": ("pcm", "ideal"),
    "learned": ("pcm", LEARNED),
    "read noise": ("reram-wan2022", Crossbar(output_bound=4.0)),
    "sliced": (SLICED, Crossbar(rows=4)),
}


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(
    "hardware",
    [name if name in ("gaussian", "pcm") else pytest.param(name, marks=pytest.mark.slow) for name in COMPILED],
)
def test_graphs_of_training_fit_into_cuda_graphs(hardware: str) -> None:
    """One graph at first, one for all other noise scales; nothing in them keeps them out of CUDA graphs."""
    device, crossbar = COMPILED[hardware]
    model = nn.Linear(6, 4)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    graphs = Graphs()
    with gpu():
        model.to("cuda")
        with_ranges(analog)
        compiled = torch.compile(analog, fullgraph=True, backend=graphs.backend)
        x = torch.randn((5, 6), device="cuda")
        output = compiled(x)
        for scale in (0.9, 0.5, 0.3):
            analogsim.set_noise_scale(analog, scale)
            output = compiled(x)
    assert places(output) == {"cuda"}
    assert 1 <= len(graphs.joint) == len(graphs.forward) <= 2
    for graph in (*graphs.joint, *graphs.forward):
        assert faults_of(graph) == []


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("hardware", ["pcm", "learned", "read noise"])
def test_the_graph_of_a_chip_fits_into_cuda_graphs(hardware: str) -> None:
    """The same graph at another age."""
    device, crossbar = COMPILED[hardware]
    model = nn.Linear(6, 4)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    graphs = Graphs()
    with gpu():
        model.to("cuda")
        with_ranges(analog)
        with Apart(copies=True, waits=True):
            analogsim.program(analog, seed=1)
        analog.eval()
        compiled = torch.compile(analog, fullgraph=True, backend=graphs.backend)
        x = torch.randn((5, 6), device="cuda")
        with torch.no_grad():
            compiled(x)
            for t in ("1h", "1d"):
                with Apart(copies=True, waits=True):
                    analogsim.drift(analog, t)
                compiled(x)
    assert 1 <= len(graphs.forward) <= 2
    for graph in graphs.forward:
        assert faults_of(graph) == []


@pytest.mark.usefixtures("_fresh_compiler")
def test_what_keeps_a_graph_out_is_seen() -> None:
    """A number that changes and a constant from the CPU are found."""
    graphs = Graphs()

    def scaled(x: Tensor, scale: float) -> Tensor:
        return x * scale + torch.tensor([1.0, 2.0, 3.0], device=x.device)

    with gpu():
        compiled = torch.compile(scaled, fullgraph=True, backend=graphs.backend)
        for scale in (1.0, 0.9, 0.8):
            compiled(torch.ones(3, device="cuda"), scale)
    assert len(graphs.forward) == 2
    assert [len(faults_of(graph)) > 0 for graph in graphs.forward] == [True, True]
    assert any("primals" in fault or "arg" in fault for fault in faults_of(graphs.forward[1]))
