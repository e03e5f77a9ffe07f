"""The benchmark of growth: every panel at tiny sizes; fits and figure from known times. No time is asserted."""

import json
import math

import numpy as np
import pytest
import torch

import analogsim

CPU = torch.device("cpu")
NAMES = ["parameters", "chips", "times", "batch", "crossbar", "workers"]


@pytest.fixture
def in_this_process(monkeypatch):
    """However many processes are asked for, it is this one: none has to import torch."""
    from benchmarks import growth

    monkeypatch.setattr(growth, "_workers", lambda count, program: exec(program, {}))


def main(*arguments):
    from benchmarks.__main__ import main

    assert main(("growth", "--quick", "--rounds", "2", "--steps", "1", *arguments)) == 0


def series(times, sizes=(1, 2, 4, 8), expected=1.0, fitted=slice(None)):
    from benchmarks.growth import Series

    return Series("call", sizes, [np.array(each) for each in times], expected, fitted, "thing")


def panel(*rows):
    from benchmarks.growth import Panel

    return Panel("chips", "chips", "what is timed", "why it grows", rows)


@pytest.mark.slow
def test_it_runs_writes_json_and_draws(in_this_process, tmp_path, capsys):
    file, figure = tmp_path / "found.json", tmp_path / "new" / "growth"
    main("--json", str(file), "--plot", str(figure))
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["settings"] == {"rounds": 2, "steps": 1}
    results = document["results"]
    assert list(dict.fromkeys(result["size"] for result in results)) == NAMES
    for result in results:
        assert len(result["seconds"]) == len(result["sizes"]) == 2
        # Of a difference, nothing but that it is a number: on tiny layers it is lost in the clock.
        least = -math.inf if result["cost"] in ("noise of a training step", "ADCs of a forward") else 0
        assert all(least < number < math.inf for spread in result["seconds"] for number in spread.values())
    assert figure.with_suffix(".png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert all(f"\n{name}: " in printed for name in NAMES)


@pytest.mark.slow
def test_processes_share_the_chips():
    from benchmarks import growth

    (found,) = growth._by_workers(growth.QUICK, {"rounds": 1, "steps": 1, "device": CPU}).series
    assert found.sizes == (1, 2)
    assert all(len(values) == 1 for values in found.seconds)


@pytest.mark.slow
def test_a_process_that_fails_says_why():
    from benchmarks import growth

    with pytest.raises(RuntimeError, match=r"(?s)1 processes failed:.*no luck"):
        growth._workers(1, "raise SystemExit('no luck')")


def test_processes_that_do_not_agree_are_not_timed(monkeypatch):
    from benchmarks import growth

    def run(count, program):
        exec(program.replace("growth.shared(2, ", f"growth.shared({count}, "), {})

    monkeypatch.setattr(growth, "_workers", run)
    monkeypatch.setattr(growth, "_check", lambda what, found, wanted, tolerance: compared.append((what, found, wanted)))
    compared = []
    growth._by_workers(growth.QUICK, {"rounds": 1, "steps": 1, "device": CPU})
    (_, one, _), (what, two, wanted) = compared
    assert what == "the scores of 2 processes and of one"
    assert (len(one), len(two)) == (1, 2)
    assert wanted is one


def test_a_twin_that_answers_otherwise_is_not_timed(monkeypatch):
    from benchmarks import growth

    model, inputs, _ = growth._layer(8, CPU, 4)
    growth._noisy(model, inputs)
    growth._noisy(model, inputs, analogsim.Crossbar(rows=4, cols=4, dac_bits=8, adc_bits=8), tolerance=0.2)
    with pytest.raises(RuntimeError, match="a layer and its twin without noise differ by"):
        growth._noisy(model, inputs, analogsim.Crossbar(rows=4, cols=4, dac_bits=8, adc_bits=8))


def test_the_slope_of_each_round_is_fitted():
    # Two rounds with slopes 1 and 2 over the upper sizes, and something constant below.
    found = series([(9, 9), (2, 4), (4, 16), (8, 64)], fitted=slice(1, None))
    assert (found.slope.low, found.slope.median, found.slope.high) == pytest.approx((1.25, 1.5, 1.75))
    # A round with a time below zero, as differences have, is left out; without any other there is no slope.
    assert series([(1, -1), (2, 2), (4, 4), (8, 8)]).slope.median == pytest.approx(1.0)
    assert series([(-1,), (2,), (4,), (8,)]).slope is None
    assert series([(1.0, 1.0)], sizes=(1,)).slope is None


def test_where_slopes_are_expected():
    from benchmarks import growth

    sizes = (1, 2, 4, 8, 16, 32)
    assert sizes[growth._rising(sizes)] == (8, 16, 32)
    assert sizes[growth._falling(sizes)] == (1, 2, 4)
    assert sizes[:5][growth._rising(sizes[:5])] == (8, 16)
    assert sizes[:5][growth._falling(sizes[:5])] == (1, 2, 4)
    assert sizes[:1][growth._rising(sizes[:1])] == (1,)
    for few in (sizes[:2], sizes[:3]):
        assert len(few[growth._rising(few)]) == 2


def test_the_figure_shows_medians_quartiles_and_the_expected_slope():
    from benchmarks import growth

    rounds = np.array([0.9, 1.0, 1.2])
    found = panel(series([1e-3 * size * rounds for size in (1, 2, 4, 8)], expected=2.0, fitted=slice(1, None)))
    (axes,) = growth.plot([found], "here").axes[:1]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("chips", "time [s]")
    points, *_, line = axes.get_lines()
    assert points.get_ydata() == pytest.approx([0.001, 0.002, 0.004, 0.008])
    # The expected slope goes through the middle of the sizes that it is expected of.
    assert line.get_xdata() == pytest.approx([2, 4, 8])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "8"]
    assert line.get_ydata() == pytest.approx([0.001, 0.004, 0.016])
    (bars,) = axes.containers[0].lines[2]
    assert bars.get_segments()[0][:, 1] == pytest.approx([0.00095, 0.0011])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["call: slope 1.00, expected 2"]


def test_sizes_are_powers_of_two_on_the_axis():
    from benchmarks.growth import _short

    assert [_short(size) for size in (1, 64, 4096, 2**20, 2**22, 1536)] == ["1", "64", "4k", "1M", "4M", "1.5k"]


def test_a_difference_below_zero_has_no_point():
    from benchmarks import growth

    nowhere = series([(-1.0,), (-2.0,), (-4.0,), (-8.0,)])
    found = panel(series([(-1.0,), (2.0,), (4.0,), (8.0,)]), nowhere)
    (axes,) = growth.plot([found], "here").axes[:1]
    assert [len(each.get_xdata()) for each in axes.get_lines() if each.get_marker() in ("o", "s")] == [3, 0]
    assert list(axes.get_lines()[0].get_xdata()) == [2, 4, 8]
    assert growth._row(found, found.series[0])[6:8] == ("", "")
    assert growth._record(found, found.series[0])["slope"] is None
