from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, Gaussian
from analogsim.evaluation.layer_sensitivity import Sensitivity, sensitivity

Batches = list[tuple[Tensor, Tensor]]


def trained(norm: bool = False) -> tuple[nn.Sequential, Batches]:
    """A network of three layers that knows which of four corners of a plane has the most points."""
    torch.manual_seed(0)
    x = torch.randn(300, 12)
    y = (x[:, :4].sum(1) > 0).long() + 2 * (x[:, 4:8].sum(1) > 0).long()
    middle: list[nn.Module] = [nn.BatchNorm1d(16)] if norm else []
    model = nn.Sequential(nn.Linear(12, 16), *middle, nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, list(zip(x.split(100), y.split(100), strict=True))


MODEL, DATA = trained()


def by_hand(names: dict[str, Any], chips: int, metric: str = "accuracy") -> np.ndarray[Any, Any]:
    twin = analogsim.convert(MODEL, {**names, "*": None})
    return analogsim.evaluate(twin, DATA, chips=chips, times=("1d",), seed=3, metric=metric).values[:, 0]


def test_each_layer_alone_on_the_same_chips() -> None:
    analog = analogsim.convert(MODEL, "pcm")
    analogsim.program(analog, seed=8)
    chips = [layer.analog.chip for layer in (analog[0], analog[2], analog[4])]
    result = sensitivity(analog, DATA, chips=4, seed=3, metric="cross_entropy")
    assert list(result.reports) == ["0", "2", "4"]
    for name in result.reports:
        values = by_hand({name: "pcm"}, 4, "cross_entropy")
        np.testing.assert_array_equal(result.reports[name].values[:, 0], values)
        np.testing.assert_array_equal(result.loss(name), values - result.clean)
        assert result.mean(name) == pytest.approx(values.mean() - result.clean)
        assert result.std(name) == pytest.approx(values.std(ddof=1))
    np.testing.assert_array_equal(
        result.everything.values[:, 0], by_hand(dict.fromkeys("024", "pcm"), 4, "cross_entropy")
    )
    assert sorted(result.ranking, key=result.mean, reverse=True) == list(result.ranking)
    apart = result.loss("0") - result.loss("4")
    assert result.difference("0", "4") == pytest.approx((apart.mean(), apart.std(ddof=1) / 2))
    # Nothing of the twin has changed.
    assert [layer.analog.chip for layer in (analog[0], analog[2], analog[4])] == chips
    assert analog.training


def test_a_layer_without_errors_costs_nothing() -> None:
    analog = analogsim.convert(MODEL, {"2": "gaussian(std=0.5)", "*": "gaussian(std=0)"})
    result = sensitivity(analog, DATA, t=0)
    assert result.ranking[0] == "2"
    assert result.mean("2") > 0.01
    assert result.mean("0") == result.mean("4") == 0
    np.testing.assert_array_equal(result.loss(), result.loss("2"))
    kept = result.keep_digital(result.clean)
    assert kept.layers == ("2",)
    assert kept.mean == result.clean
    assert kept.std == 0


def test_crossbars_and_ranges_are_those_of_the_twin() -> None:
    crossbar = Crossbar(dac_bits=3, adc_bits=3, input_range="calibrated", output_bound="calibrated")
    analog = analogsim.convert(MODEL, "gaussian(std=0.1)", crossbar={"2": crossbar})
    analogsim.calibrate(analog, [DATA[0][0]])
    result = sensitivity(analog, DATA, t=0, chips=2, compensation="global")
    alone = analogsim.convert(MODEL, {"2": "gaussian(std=0.1)", "*": None}, crossbar=crossbar)
    alone[2].analog.input_range, alone[2].analog.output_bound = (
        analog[2].analog.input_range,
        analog[2].analog.output_bound,
    )
    values = analogsim.evaluate(alone, DATA, chips=2, times=(0,)).values
    np.testing.assert_array_equal(result.reports["2"].values, values)
    kept = result.keep_digital(result.clean - 1)
    assert kept.crossbar == {"0": Crossbar(), "2": crossbar, "4": Crossbar()}
    # Ranges set again on each chip concern only the layer that has them.
    again = sensitivity(analog, DATA, t=0, chips=2, compensation="global+ranges", calibration=iter([DATA[0][0]]))
    np.testing.assert_array_equal(again.reports["0"].values, result.reports["0"].values)


def test_batch_norm_is_estimated_again_on_request() -> None:
    model, data = trained(norm=True)
    analog = analogsim.convert(model, "pcm")
    inputs = [batch for batch, _ in data]
    result = sensitivity(analog, data, chips=2, compensation="global+batch-norm", calibration=inputs)
    alone = analogsim.convert(model, {"3": "pcm", "*": None})
    options: dict[str, Any] = {"compensation": "global+batch-norm", "calibration": inputs}
    values = analogsim.evaluate(alone, data, chips=2, times=("1d",), **options).values
    np.testing.assert_array_equal(result.reports["3"].values, values)


def noisy() -> Sensitivity:
    return sensitivity(analogsim.convert(MODEL, "gaussian(std=0.25)"), DATA, t=0, chips=3)


def test_layers_that_were_digital_stay_so() -> None:
    analog = analogsim.convert(MODEL, {"4": None, "*": "gaussian(std=0.25)"})
    result = sensitivity(analog, DATA, t=0, chips=2)
    assert list(result.reports) == ["0", "2"]
    kept = result.keep_digital(float(result.everything.mean[0]))
    assert kept.device == {"0": analog[0].analog.device, "2": analog[2].analog.device, "*": None}
    mixed = analogsim.convert(MODEL, {"0": "pcm", "2": Gaussian(0.1), "4": None})
    result = sensitivity(mixed, DATA, chips=2)
    kept = result.keep_digital(float(result.everything.mean[0]))
    assert kept.device == {"0": mixed[0].analog.device, "2": mixed[2].analog.device, "*": None}


def test_shares() -> None:
    result = noisy()
    parameters = sum(parameter.numel() for parameter in MODEL.parameters())
    products = 12 * 16 + 16 * 16 + 16 * 4
    for name, size in {"0": 12 * 16, "2": 16 * 16, "4": 16 * 4}.items():
        assert result.shares[name].parameters == pytest.approx(size / parameters)
        assert result.shares[name].macs == pytest.approx(size / products)
    kept = result.keep_digital(result.clean)
    left = [name for name in result.reports if name not in kept.layers]
    assert kept.share.macs == pytest.approx(sum(result.shares[name].macs for name in left))


def test_a_tied_weight_counts_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    data = [(torch.randn(6, 4), torch.arange(6) % 4)]
    result = sensitivity(analogsim.convert(model, "gaussian"), data, t=0, chips=1)
    assert [share.parameters for share in result.shares.values()] == pytest.approx([8 / 24, 8 / 24])
    assert [share.macs for share in result.shares.values()] == pytest.approx([0.5, 0.5])


def test_matrices_inside_of_a_module() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.attention(x, x, x)[0]
            return y.sum(1)

    data = [(torch.randn(20, 3, 4), torch.arange(20) % 4)]
    result = sensitivity(
        analogsim.convert(Attention(), "gaussian(std=0.3)"), data, t=0, chips=2, metric="cross_entropy"
    )
    assert set(result.reports) == {f"attention.{part}_proj" for part in ("q", "k", "v", "out")}
    assert all(result.std(name) > 0 for name in result.reports)


def test_tables() -> None:
    result = noisy()
    lines = str(result).splitlines()
    assert lines[0].split() == ["analog", "accuracy", "[%]", "loss", "[%]", "parameters", "multiply-acc."]
    assert [line.split()[0] for line in lines[2:7]] == [*result.ranking, "everything", "nothing"]
    assert f"{100 * result.mean():.2f} ± {100 * result.std():.2f}" in lines[5]
    assert lines[-1].startswith("mean ± std over chips: 0s after programming, gaussian(std=0.25), 3 chips, 300 samples")
    kept = result.keep_digital(result.clean - 0.05)
    lines = str(kept).splitlines()
    assert lines[2].startswith("nothing")
    assert lines[3].startswith(f"+ {kept.layers[0]}")
    assert f"is reached with {len(kept.layers)} layer" in lines[-1]
    assert "nan" not in str(sensitivity(analogsim.convert(MODEL, "pcm"), DATA, chips=1))


def test_frames() -> None:
    pytest.importorskip("pandas")
    result = noisy()
    frame = result.to_frame()
    assert list(frame.columns) == ["layer", "chip", "accuracy", "loss", "parameters", "multiply-accumulates"]
    assert frame.groupby("layer")["loss"].mean()["2"] == pytest.approx(result.mean("2"))
    kept = result.keep_digital(result.clean).to_frame()
    assert list(kept["step"].unique()) == list(range(len(kept) // 3))
    assert list(kept["chip"].unique()) == [0, 1, 2]


def test_plots() -> None:
    pytest.importorskip("matplotlib")
    result = noisy()
    axes = result.plot().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(result.reports)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([result.mean(name) for name in result.reports])
    kept = result.keep_digital(result.clean)
    points = kept.plot().axes[0].lines[0]
    assert points.get_xdata() == pytest.approx([100 * step.share.macs for step in kept.steps])
    assert points.get_ydata() == pytest.approx([step.mean for step in kept.steps])


def test_a_loader_that_can_be_read_once_and_a_metric_of_ones_own() -> None:
    def once() -> Iterator[tuple[Tensor, Tensor]]:
        yield from DATA

    def wrong(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) != target).float()

    analog = analogsim.convert(MODEL, "gaussian(std=0.25)")
    result = sensitivity(analog, once(), t=0, chips=3, metric=wrong, higher_is_better=False)
    expected = noisy()
    assert result.metric == "wrong"
    for name in "024":
        np.testing.assert_allclose(result.loss(name), expected.loss(name), atol=1e-7)
    kept = result.keep_digital(result.clean + 0.002)
    assert kept.mean <= result.clean + 0.002


def test_inputs_by_name() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = MODEL

        def forward(self, *, values: Tensor) -> dict[str, Tensor]:
            return {"logits": self.body(values)}

    batches = [{"values": x, "labels": y} for x, y in DATA]
    result = sensitivity(analogsim.convert(Named(), "gaussian(std=0.25)"), batches, t=0, chips=2)
    shares = list(noisy().shares.values())
    assert [share.macs for share in result.shares.values()] == pytest.approx([share.macs for share in shares])
    assert result.mean() > 0.01


def test_errors() -> None:
    result = noisy()
    with pytest.raises(ValueError, match=r"a share lies between 0 and 1, got 1\.5; did you mean 0\.015\?"):
        result.keep_digital(1.5)
    with pytest.raises(ValueError, match="a share lies between 0 and 1, got nan"):
        result.keep_digital(float("nan"))
    with pytest.raises(ValueError, match="per must be one of macs, parameters, got 'cells'"):
        result.keep_digital(0.5, per="cells")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'7' is no analog layer; there are '0', '2', '4'"):
        result.loss("7")
    with pytest.raises(ValueError, match="chips must be an integer >= 1"):
        sensitivity(analogsim.convert(MODEL, "pcm"), DATA, chips=0)
    with pytest.raises(ValueError, match="has no analog layer"):
        sensitivity(MODEL, DATA)


def test_shares_of_weights_that_are_computed_or_turned_around() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(nn.Unflatten(1, (4, 1)), nn.ConvTranspose1d(4, 4, 1, groups=2), nn.Flatten(), normed)
    data = [(torch.randn(6, 4), torch.arange(6) % 4)]
    result = sensitivity(analogsim.convert(model, "gaussian"), data, t=0, chips=1)
    assert {name: share.macs for name, share in result.shares.items()} == pytest.approx({"1": 8 / 24, "3": 16 / 24})
    assert result.shares["1"].parameters == pytest.approx(8 / 36)
