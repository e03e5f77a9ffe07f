"""What is kept helps on chips, inputs and ages that had no part in the choice, and costs what is said."""

import itertools
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import analogsim
from analogsim.chip import COMPENSATIONS, Adjustment
from analogsim.chip.compensation import Compensations
from analogsim.errors import NonFiniteError
from analogsim.evaluation import Metric
from analogsim.evaluation.preparation.choice import OUTPUTS, Bench, Choice
from analogsim.layers import matrices_of

QUICK = {"budget": "60s", "chips": 4}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 8)).eval()


def wrong(analog, model, x, **how):
    """Mean squared error of answers on fresh chips."""

    def squares(output, target):
        return (output - target).square().mean(1)

    metric = Metric("error", squares, higher_is_better=False)
    data = [(x, model(x).detach())]
    return analogsim.evaluate(analog, data, chips=6, times=["1y"], metric=metric, **how).values[:, 0]


class Offset(Adjustment):
    """A digital offset for each output of the network."""

    name = "offset"

    @contextmanager
    def on_chip(self, analog, data):
        offset = torch.zeros(())
        hook = analog.register_forward_hook(lambda module, inputs, output: output + offset)

        def renew():
            nonlocal offset
            offset = torch.zeros(())
            offset = torch.cat([data.digital(inputs) - analog(inputs) for inputs in data.inputs()]).mean(0)

        try:
            yield renew
        finally:
            hook.remove()


@pytest.fixture
def offset(monkeypatch):
    """The one compensation from data that there is."""
    for name, part in list(COMPENSATIONS.items()):
        if part.needs_data:
            monkeypatch.delitem(COMPENSATIONS, name)
    monkeypatch.setitem(COMPENSATIONS, "offset", Offset())


def test_a_compensation_that_has_a_name_is_tried_and_kept(offset):
    model, x = network(), torch.randn(120, 32) + 1
    analog = analogsim.convert(model, "pcm+stuck-at(p_off=0.05)")
    before = wrong(analog, model, x)
    prepared = analogsim.prepare(analog, x[:80], **QUICK)
    assert prepared.analog is analog
    assert "offset" in prepared.kept
    assert "offset" in prepared.compensation.names
    assert prepared.after < 0.8 * prepared.before
    after = wrong(analog, model, x, compensation=prepared.compensation, calibration=x[:80], faults=prepared.faults)
    gained = before - after
    assert gained.mean() > 2 * gained.std(ddof=1) / len(gained) ** 0.5
    (row,) = (step for step in prepared.steps if step.name == "offset")
    assert row.kept
    assert row.alone < prepared.before
    assert row.added >= prepared.after
    told = str(prepared)
    assert "relative squared error of the answers" in told
    assert "mean over 4 chips at 1s, 1y, 40 inputs held out" in told
    assert "inputs through each chip at each age" in told


def test_what_another_step_builds_on_stays(offset, monkeypatch):
    class OfCalibrated(Offset):
        name = "answers"

        def why_not(self, analog):
            calibrates = all(matrix.analog.crossbar.calibrates for matrix in matrices_of(analog))
            return "" if calibrates else "no range comes from calibration"

        @contextmanager
        def on_chip(self, analog, data):
            hook = analog.register_forward_hook(lambda module, inputs, output: data.digital(*inputs))
            yield lambda: None
            hook.remove()

    torch.manual_seed(0)
    model, x = nn.Linear(8, 4).eval(), torch.randn(20, 8)
    monkeypatch.delitem(COMPENSATIONS, "offset")
    monkeypatch.setitem(COMPENSATIONS, "answers", OfCalibrated())
    analog = analogsim.convert(model, "gaussian(std=0.01)", crossbar="standard(output_bound=0.5)")
    prepared = analogsim.prepare(analog, x, **QUICK)
    assert prepared.after == 0
    assert "answers" in prepared.kept
    needed = {"input-range", "output-bound", "output-bound-calibrated"}
    assert needed & set(prepared.kept), "without which there would be no answers"


def test_outputs_are_matched_on_each_chip():
    model, x = network(), torch.randn(160, 32)
    analog = analogsim.convert(model, "stuck-at(p_off=0.05)")
    before = wrong(analog, model, x[80:])
    prepared = analogsim.prepare(analog, x[:80], **QUICK)
    assert len({"affine", "bias"} & set(prepared.kept)) == 1, "one is a part of the other"
    gained = before - wrong(analog, model, x[80:], compensation=prepared.compensation, calibration=x[:80])
    assert gained.mean() > 2 * gained.std(ddof=1) / len(gained) ** 0.5


def test_ranges_and_percentile_are_set_on_the_twin():
    model = network()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(torch.distributions.StudentT(3.0).sample(layer.weight.shape) / 6)
    x = torch.where(torch.rand(160, 32) < 0.003, 20.0, 1.0) * torch.randn(160, 32)
    coarse = "standard(dac_bits=4, output_noise=0.08, input_range='calibrated')"
    analog = analogsim.convert(model, "gaussian(std=0.05, cells='pair', scale='tensor')", crossbar=coarse)
    analogsim.calibrate(analog, x[:80])
    before = wrong(analog, model, x[80:])
    prepared = analogsim.prepare(analog, x[:80], **QUICK)
    assert "percentile" in prepared.kept
    assert {"input-range", "output-bound", "ranges"} & set(prepared.kept)
    gained = before - wrong(analog, model, x[80:], compensation=prepared.compensation, calibration=x[:80])
    assert gained.mean() > 3 * gained.std(ddof=1) / len(gained) ** 0.5
    assert any(mapping.percentile < 100 for mapping in prepared.mapping.values())
    again = analogsim.convert(model, prepared.devices, crossbar=prepared.crossbars)
    analogsim.set_ranges(again, prepared.ranges)
    assert (wrong(again, model, x[80:]) == wrong(analog, model, x[80:])).all()


def test_nothing_is_kept_where_nothing_helps():
    model, x = network(), torch.randn(60, 32)
    analog = analogsim.convert(model, "quantization(levels=65536)")
    prepared = analogsim.prepare(analog, x, **QUICK)
    assert prepared.kept == ()
    assert prepared.compensation.text == "global"
    assert prepared.after == prepared.before < 1e-6
    assert "kept: nothing" in str(prepared)


def test_copies_are_taken_where_they_are_allowed():
    model, x = network(), torch.randn(60, 32)
    alone = analogsim.prepare(analogsim.convert(model, "pcm"), x, **QUICK)
    assert not any("copies" in step.name for step in alone.steps)
    assert len(set(alone.cells)) == 1
    prepared = analogsim.prepare(analogsim.convert(model, "pcm"), x, copies=4, **QUICK)
    assert "copies-4" in prepared.kept
    assert "copies-2" not in prepared.kept
    assert prepared.cells == (alone.cells[0], 4 * alone.cells[0])
    assert {mapping.copies for mapping in prepared.mapping.values()} == {4}
    assert f"{prepared.cells[1]:,} cells, {prepared.cells[0]:,} before" in str(prepared)


def test_weights_are_laid_around_known_faults():
    model, x = network(), torch.randn(60, 32)
    analog = analogsim.convert(model, "quantization(levels=65536)")

    def known(seed):
        return analogsim.draw_faults(analog, "stuck-at(p_off=0.1, p_on=0.05)", seed)

    before = wrong(analog, model, x, faults=known)
    prepared = analogsim.prepare(analog, x, faults=known, **QUICK)
    assert any(name.startswith("remap") for name in prepared.kept)
    assert (wrong(analog, model, x, faults=prepared.faults, compensation=prepared.compensation) < before).all()
    one = analogsim.prepare(analog, x, faults=known(3), **QUICK)
    assert any(name.startswith("remap") for name in one.kept)
    assert isinstance(one.faults, dict)
    kept = analogsim.prepare(analogsim.convert(model, "pcm"), x, faults=known(3), budget=0.001, chips=2)
    assert kept.faults is not None, "faults that are known are handed on, also where nothing is done about them"


def test_the_budget_is_kept(monkeypatch):
    """With a clock that moves by a second with each look at it."""
    model, x = network(), torch.randn(60, 32)
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    ticks = itertools.count()
    monkeypatch.setattr("analogsim.evaluation.preparation.planner.clock.monotonic", lambda: float(next(ticks)))
    prepared = analogsim.prepare(analog, x, budget=8, chips=2)
    assert prepared.seconds < 30
    told = [step.why for step in prepared.steps]
    assert "no time was left" in told
    assert all(step.alone is not None or step.why for step in prepared.steps)


def test_outputs_are_matched_first_so_that_a_short_time_is_enough_for_it(monkeypatch):
    analog = analogsim.convert(network(), "pcm", crossbar="standard")
    ticks, told = itertools.count(), []
    monkeypatch.setattr("analogsim.evaluation.preparation.planner.clock.monotonic", lambda: float(next(ticks)))
    prepared = analogsim.prepare(analog, torch.randn(64, 32), budget=8, chips=2, tell=told.append)
    assert told[0] == "affine"
    names = [step.name for step in prepared.steps]
    assert names.index("global") < names.index("column") < names.index("affine")  # the table is in its own order


def test_the_first_measurement_is_made_in_any_case():
    model, x = network(), torch.randn(60, 32)
    prepared = analogsim.prepare(analogsim.convert(model, "pcm"), x, budget=1e-3, chips=2)
    assert prepared.kept == ()
    assert prepared.before == prepared.after > 0


def test_chips_as_the_budget_allows():
    model, x = network(), torch.randn(20, 32)
    analog = analogsim.convert(model, "gaussian")
    assert analogsim.prepare(analog, x, budget="10min").chips == 16
    assert analogsim.prepare(analog, x, budget=1e-3).chips == 4


def test_several_ages_and_other_criteria():
    model, x = network(), torch.randn(60, 32)
    analog = analogsim.convert(model, "pcm")
    prepared = analogsim.prepare(analog, x, time=["1y", "1h"], criterion="agreement", **QUICK)
    assert prepared.times == (3600.0, 365 * 86400.0)
    assert "other class than the digital network" in str(prepared)
    assert 0 <= prepared.after <= prepared.before < 0.5
    same = Metric("same sign", lambda output, target: (output * target > 0).float().mean(1), higher_is_better=True)
    prepared = analogsim.prepare(analog, x, criterion=same, **QUICK)
    assert -1 <= prepared.after <= prepared.before < 0, "higher is better, so that the error is the score turned round"


def test_a_sequence_of_tokens_and_a_mapping_of_arguments():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.cells, self.head = nn.Embedding(9, 8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 5)

        def forward(self, tokens):
            return self.head(self.cells(self.table(tokens))[0])

    torch.manual_seed(0)
    analog = analogsim.convert(Tagger(), {"table": None, "*": "pcm"})
    prepared = analogsim.prepare(analog, {"tokens": torch.randint(9, (20, 6))}, budget="20s", chips=2)
    assert prepared.samples == 10
    assert prepared.after <= prepared.before


def test_it_is_a_frame_and_a_dictionary():
    model, x = network(), torch.randn(40, 32)
    prepared = analogsim.prepare(analogsim.convert(model, "pcm"), x, budget=0.2, chips=2)
    frame = prepared.to_frame()
    assert list(frame["name"]) == [step.name for step in prepared.steps]
    found = prepared.to_dict()
    assert found["compensation"] == prepared.compensation.text
    assert found["devices"] == {"0": "pcm", "2": "pcm"}


def test_the_twin_is_as_it_was_where_it_fails():
    model, x = network(), torch.randn(40, 32)
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    before = [(state.device, state.crossbar) for state in (matrix.analog for matrix in matrices_of(analog))]
    wrong_at = Metric("wrong", lambda output, target: (output - target).square().mean(1) / 0.0, higher_is_better=False)
    with pytest.raises(NonFiniteError):
        analogsim.prepare(analog, x, criterion=wrong_at, **QUICK)
    assert [(state.device, state.crossbar) for state in (matrix.analog for matrix in matrices_of(analog))] == before


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"budget": 0}, ValueError, "budget must be a time > 0"),
        ({"budget": "1x"}, ValueError, "budget must be a time > 0, such as 30 or .30s., got '1x'"),
        ({"budget": None}, ValueError, "budget must be a time > 0"),
        ({"faults": 3}, TypeError, "prepare: faults must be a mapping .* got a int"),
        ({"tell": None}, TypeError, "prepare: tell must be a function of a text"),
        ({"chips": 1}, ValueError, "chips must be an integer >= 2, got 1"),
        ({"copies": 0}, ValueError, "copies must be an integer >= 1, got 0"),
        ({"samples": True}, ValueError, "samples must be an integer >= 2, got True"),
        ({"time": []}, ValueError, "time must be a sequence such as"),
        ({"criterion": "accuracy"}, ValueError, 'criterion must be "error", "agreement" or a Metric, got \'accuracy\''),
        ({"criterion": Metric("m", lambda a, b: a)}, ValueError, "the criterion 'm' needs a direction"),
        ({"compensation": "colum"}, ValueError, "compensation: must be None, or one of"),
    ],
)
def test_what_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        analogsim.prepare(analogsim.convert(network(), "pcm"), torch.randn(8, 32), **changes)


@pytest.mark.parametrize("inputs", [torch.zeros(1, 32), [torch.zeros(1, 32)]])
def test_what_it_is_judged_by_is_held_out(inputs):
    """Of one sample outputs would be matched exactly, and nothing be known."""
    with pytest.raises(ValueError, match="half of the inputs is held out"):
        analogsim.prepare(analogsim.convert(network(), "pcm"), inputs, **QUICK)


def test_several_arguments():
    """They stay arguments on the way to compensations and searches."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 4), nn.Linear(5, 4)

        def forward(self, x, y):
            return self.one(x) + self.two(y)

    torch.manual_seed(0)
    analog = analogsim.convert(Sum(), "pcm(percentile=100)", crossbar="standard(input_range='calibrated')")
    x, y = torch.randn(64, 6), torch.randn(64, 5)
    analogsim.calibrate(analog, [((x, y), None)])
    prepared = analogsim.prepare(analog, [((x, y), torch.zeros(64))], budget="30s", chips=2, samples=600)
    assert prepared.samples == 32
    measured = {step.name for step in prepared.steps if step.alone is not None}
    assert measured >= {"affine", "ranges", "percentile", "input-range"}


def test_the_chip_that_was_there_is_there_where_it_fails():
    analog = analogsim.convert(network(), "pcm")
    analogsim.program(analog, seed=1)
    before = [matrix.analog.chip for matrix in matrices_of(analog)]
    with pytest.raises(ValueError, match="the network has no batch norm"):
        analogsim.prepare(analog, torch.randn(8, 32), compensation="batch-norm", **QUICK)
    assert all(matrix.analog.chip is chip for matrix, chip in zip(matrices_of(analog), before, strict=True))
    assert None not in before


def test_chips_without_faults_and_faults_that_are_none():
    analog = analogsim.convert(network(), "pcm")
    prepared = analogsim.prepare(analog, torch.randn(16, 32), faults=lambda seed: None, **QUICK)
    assert not {"remap", "remap-signs"} & set(prepared.kept)
    with pytest.raises(TypeError, match=r"program: faults must be a mapping from layers to maps .* got 3"):
        analogsim.prepare(analog, torch.randn(16, 32), faults=lambda seed: 3, **QUICK)


def test_inputs_and_answers_that_are_refused():
    with pytest.raises(ValueError, match="the loader is empty"):
        analogsim.prepare(analogsim.convert(network(), "pcm"), [])

    class Texts(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return [str(value) for value in self.layer(x).argmax(1).tolist()]

    with pytest.raises(TypeError, match="the network answers with a list of 3 str, and criterion='error'"):
        analogsim.prepare(analogsim.convert(Texts(), "pcm"), torch.randn(6, 4))
    with pytest.raises(ValueError, match="of classes along axis 1"):
        analogsim.prepare(
            analogsim.convert(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), "pcm"),
            torch.randn(6, 4),
            criterion="agreement",
        )


def test_what_learned_ranges_cut_off_is_not_brought_back():
    model, x = network(), torch.randn(160, 32)
    analog = analogsim.convert(model, "gaussian(std=0.0)", crossbar="standard(input_range='learned', output_noise=0.0)")
    analogsim.calibrate(analog, [x / 3])
    prepared = analogsim.prepare(analog, x, **QUICK)
    assert prepared.before == pytest.approx(0, abs=1e-9), "the network that was trained has lost nothing"
    assert not prepared.kept


class Loud(nn.Module):
    """A small layer whose inputs are far apart, as raw powers of a spectrum are, before others that do well."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.first, self.second = nn.Linear(16, 24, bias=False), nn.Linear(24, 64), nn.Linear(64, 8)

    def forward(self, x):
        return self.second(self.first(self.loud(x * torch.logspace(0, 3, 16)).relu()).relu())


def loud():
    torch.manual_seed(0)
    model = Loud().eval()
    with torch.no_grad():  # what counts comes from small inputs
        model.loud.weight.mul_(torch.logspace(0, -3, 16))
    return model


@pytest.mark.slow
def test_what_errs_most_stays_digital_where_that_is_allowed():
    model, x = loud(), torch.randn(128, 16)
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    cells = sum(matrix.analog.cells for matrix in matrices_of(analog))
    prepared = analogsim.prepare(analog, x, digital=0.2, **QUICK)
    assert prepared.digital == ("loud",)
    assert "digital-1" in prepared.kept
    row = next(step for step in prepared.steps if step.name == "digital-1")
    assert row.takes == "'loud' digital"
    assert row.alone < 0.5 * prepared.before
    assert prepared.cells == (cells, cells - 2 * 16 * 24)
    analogsim.program(analog.eval(), seed=0)
    assert torch.equal(analog.loud(x), model.loud(x))
    again = analogsim.convert(model, prepared.devices, crossbar=prepared.crossbars)
    analogsim.set_ranges(again, prepared.ranges)
    how = {"compensation": prepared.compensation, "calibration": x}
    assert (wrong(again, model, x, **how) == wrong(prepared.analog, model, x, **how)).all()


@pytest.mark.slow
def test_nothing_stays_digital_that_is_not_asked_to_or_too_large():
    model, x = loud(), torch.randn(128, 16)
    for share in (0.0, 0.1):
        prepared = analogsim.prepare(analogsim.convert(model, "pcm", crossbar="standard"), x, digital=share, **QUICK)
        assert prepared.digital == ()
        assert not any(step.name.startswith("digital") and "loud" in step.takes for step in prepared.steps)


@pytest.mark.parametrize("share", [-0.1, 3, True, "0.1", float("nan")])
def test_a_share_is_one(share):
    analog = analogsim.convert(network(), "pcm")
    with pytest.raises(ValueError, match="digital is the share of the weights that may stay digital, 0 to 1, got"):
        analogsim.prepare(analog, torch.randn(64, 32), digital=share)


def test_a_dear_step_does_not_keep_cheap_ones_from_being_tried(monkeypatch):
    """Each kind of measurement is as long as those of its kind were."""
    from analogsim.evaluation.preparation import planner

    now = [0.0]
    monkeypatch.setattr(planner.clock, "monotonic", lambda: now[0])
    judge = planner.judge_chips

    def timed(*args, compensation, **how):
        now[0] += 10.0 if compensation.adjustments else 1.0
        return judge(*args, compensation=compensation, **how)

    monkeypatch.setattr(planner, "judge_chips", timed)
    analog = analogsim.convert(network(), "pcm")
    prepared = analogsim.prepare(analog, torch.randn(64, 32), budget="19s", chips=2)
    tried = {step.name: step.why for step in prepared.steps}
    assert tried["affine"] == ""
    assert tried["bias"] == "no time was left"
    assert tried["column"] in ("", "beside the others no time was left")  # tried alone


def test_a_bound_that_cuts_off_is_set_from_data_first():
    """Of a network with large sums, in a time that is too short for a search."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(96, 16), nn.ReLU(), nn.Linear(16, 8)).eval(), torch.rand(128, 96)
    with torch.no_grad():
        model[0].weight.abs_()
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    prepared = analogsim.prepare(analog, x, **QUICK)
    rows = {step.name: step for step in prepared.steps}
    assert rows["output-bound-calibrated"].alone < 0.3 * prepared.before
    assert {"output-bound", "output-bound-calibrated"} & set(prepared.kept)
    assert prepared.after < 0.3 * prepared.before


def test_a_bound_is_set_again_for_other_largest_weights():
    analog = analogsim.convert(network(), "pcm(scale='tensor')", crossbar="standard")
    inputs = [torch.randn(64, 32)]
    bench = Bench(analog, inputs, [1.0])
    both = Choice(Compensations(), percentile=True, calibrated=frozenset({OUTPUTS}))
    bench.put(both)
    assert all(matrix.analog.crossbar.output_bound == "calibrated" for matrix in matrices_of(analog))
    found = analogsim.get_ranges(analog)
    analogsim.calibrate(analog, inputs)
    assert found == analogsim.get_ranges(analog)
    assert not bench.is_made(Choice(Compensations(), percentile=True))
    assert bench.is_made(Choice(Compensations(), calibrated=frozenset({OUTPUTS})))
