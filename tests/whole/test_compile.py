"""Compiled twins: one graph in training and in eval, not one more for each step or noise scale; exported chips."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional

import analogsim
from analogsim import Crossbar


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


CROSSBARS: dict[str, Any] = {
    "ideal": "ideal",
    "blocks": Crossbar(rows=4, cols=4),
    "standard": "standard",
    "bounds": Crossbar(dac_bits=8, adc_bits=8, input_range=2.0, output_bound=4.0, gain_mismatch=0.01),
    "serial": Crossbar(dac_bits=3, adc_bits=6, output_bound=4.0, bit_serial=True),
    "wires": Crossbar(rows=4, cols=4, wire_resistance=1.0),  # what solves them is unrolled: minutes for larger arrays
}


PAIRS = [
    ("pcm", "ideal"),
    ("pcm", "standard"),
    ("gaussian", "ideal"),
    *(pytest.param("pcm", name, marks=pytest.mark.slow) for name in CROSSBARS if name not in ("ideal", "standard")),
    pytest.param("reram-wan2022", "ideal", marks=pytest.mark.slow),
    pytest.param("drift", "wires", marks=pytest.mark.slow),  # wires make one graph, whatever device is in front of them
    *(
        pytest.param(device, "standard", marks=pytest.mark.slow)
        for device in analogsim.available_devices()
        if device != "pcm"
    ),
]


def make(device: str, crossbar: str) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3))
    return model, analogsim.convert(model, device, crossbar=CROSSBARS[crossbar]), torch.randn(5, 9)


@pytest.mark.parametrize(("device", "crossbar"), PAIRS)
def test_trap_13_training_is_one_graph_whatever_the_noise_scale(device: str, crossbar: str) -> None:
    """The first change of the scale compiles once more, for any scale; scale 0 is a graph of its own."""
    model, analog, x = make(device, crossbar)
    counter = CompileCounterWithBackend("aot_eager")  # which specialises what the first stage leaves open
    compiled = torch.compile(analog, backend=counter, fullgraph=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(6):
        analogsim.set_noise_scale(analog, 1 - step / 10)
        optimizer.zero_grad()
        compiled(x).square().sum().backward()
        optimizer.step()
    assert counter.frame_count <= 2
    assert model[0].weight.grad.isfinite().all()


@pytest.mark.parametrize(("device", "crossbar"), PAIRS)
def test_trap_13_a_chip_answers_in_one_graph(device: str, crossbar: str) -> None:
    _, analog, x = make(device, crossbar)
    analogsim.program(analog, seed=1)
    analog.eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(analog, backend=counter, fullgraph=True)
    answers = torch.stack([compiled(x).detach() for _ in range(20)])
    assert counter.frame_count == 1
    torch.manual_seed(1)
    eager = torch.stack([analog(x).detach() for _ in range(20)])
    # Where nothing is noisy from use to use the two are the same; else their means are, within five standard errors.
    error = (answers.std(0) ** 2 / 20 + eager.std(0) ** 2 / 20).sqrt()
    assert ((answers.mean(0) - eager.mean(0)).abs() <= 5 * error + 1e-6).all()
    assert (answers.std(0) > 0).any() == (eager.std(0) > 0).any()


def test_another_age_of_the_chip_is_another_answer() -> None:
    """A compiled twin never answers with the chip as it was when it was compiled."""
    _, analog, x = make("pcm", "ideal")
    analogsim.program(analog, seed=1)
    analog.eval()
    compiled = torch.compile(analog, backend="eager", fullgraph=True)
    fresh = compiled(x)
    analogsim.drift(analog, "1y")
    assert not torch.equal(compiled(x), fresh)
    assert torch.equal(compiled(x), analog(x))
    analogsim.program(analog, seed=2)
    assert torch.equal(compiled(x), analog(x))


def test_ages_and_chips_are_compiled_at_most_twice() -> None:
    _, analog, x = make("pcm", "ideal")
    analog.eval()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(analog, backend=counter, fullgraph=True)
    for seed in range(4):
        for t in ("1s", "1d", "1y"):
            with analogsim.programmed(analog, seed=seed, t=t):
                compiled(x)
    assert counter.frame_count <= 2


def test_routed_products_compile() -> None:
    class Both(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return functional.linear(input, self.weight, self.bias) + input

    torch.manual_seed(0)
    model = nn.Sequential(Both(4, 4), nn.Linear(4, 2))
    analog = analogsim.convert(model, "gaussian(std=0.1)")
    x = torch.randn(3, 4)
    torch.compile(analog, backend="eager", fullgraph=True)(x).sum().backward()
    assert model[0].weight.grad.isfinite().all()
    analogsim.program(analog, seed=1)
    analog.eval()
    compiled = torch.compile(analog, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), analog(x))
    assert not torch.allclose(analog(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize(("device", "crossbar"), [("gaussian", "ideal"), ("pcm", "ideal"), ("pcm", "standard")])
def test_compiled_to_machine_code_the_noise_has_its_size(device: str, crossbar: str) -> None:
    """Inductor's own random numbers: mean and spread over 400 draws, within 5 standard errors of eager ones."""
    _, analog, x = make(device, crossbar)
    compiled = torch.compile(analog, fullgraph=True)
    torch.manual_seed(1)
    draws = torch.stack([compiled(x).detach() for _ in range(400)])
    eager = torch.stack([analog(x).detach() for _ in range(400)])
    spread = eager.std(0)
    assert ((draws.mean(0) - eager.mean(0)).abs() < 5 * spread * (2 / 400) ** 0.5).all()
    assert ((draws.std(0) / spread - 1).abs() < 5 / 400**0.5).all()


# --- export ---------------------------------------------------------------------------------------------------------


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return model, torch.randn(2, 1, 4, 4)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("crossbar", ["ideal", "standard(output_noise=0)"])
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11 says so of a program it loads
def test_an_exported_chip_is_the_chip(crossbar: str, strict: bool) -> None:
    model, x = network()
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, "1d")
    answer = analog.eval()(x)
    file = io.BytesIO()
    torch.export.save(torch.export.export(analog, (x,), strict=strict), file)
    analogsim.erase(analog)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(x), answer)


def programmed_network(analog: nn.Module) -> nn.Module:
    return analogsim.to_digital(analog, "programmed").eval()


@pytest.mark.slow
@pytest.mark.parametrize("what", [programmed_network, lambda analog: analog], ids=["plain network", "twin"])
@pytest.mark.filterwarnings("ignore")  # of the exporter's own making
def test_onnx_export_of_a_chip(what: Callable[[nn.Module], nn.Module]) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = network()
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog, seed=3)
    answer = analog.eval()(x).detach()
    file = io.BytesIO()
    torch.onnx.export(what(analog), (x,), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), answer)
