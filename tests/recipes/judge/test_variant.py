from dataclasses import replace
from functools import partial

import pytest
import torch

import analogsim
from analogsim.layers import matrices_of
from analogsim.recipes.judge.remedies import combine, read_remedies
from analogsim.recipes.judge.variant import Subject, Variant


def names_of(twin):
    return [matrix.analog.name for matrix in matrices_of(twin)]


def test_layers_stay_digital(subject):
    assert names_of(subject.twin(Variant().with_digital(["1"]))) == ["0", "5"]
    with pytest.raises(ValueError, match="every layer would be digital"):
        subject.twin(Variant().with_digital(["0", "1", "5"]))


def test_other_mappings_and_ranges(subject):
    variant = Variant(percentile=99.0).with_mapping(copies=2).with_crossbar(input_range="calibrated")
    states = [matrix.analog for matrix in matrices_of(subject.twin(variant))]
    assert all(state.device.laid.copies == 2 and state.input_range is not None for state in states)


def test_ranges_that_are_there_stay(model, samples):
    analog = analogsim.convert(model, "pcm", crossbar='standard(input_range="learned")')
    analogsim.calibrate(analog, samples)
    ranges = {name: {"input_range": 2 * found["input_range"]} for name, found in analogsim.get_ranges(analog).items()}
    analogsim.set_ranges(analog, ranges)
    subject = Subject(analog, [], "pcm", "standard")
    for name, found in analogsim.get_ranges(subject.twin(Variant())).items():
        torch.testing.assert_close(found["input_range"], ranges[name]["input_range"])


def test_ranges_without_data_are_refused(model):
    subject = Subject(analogsim.convert(model, "pcm", crossbar="standard"), [], "pcm", "standard")
    with pytest.raises(ValueError, match="give calibration="):
        subject.twin(Variant().with_crossbar(input_range="calibrated"))


@pytest.mark.parametrize("device", ["pcm", "pcm+stuck-at", "stuck-at"])
@pytest.mark.parametrize(
    "remedies",
    [
        "column+batch-norm",
        "affine+batch-norm",
        "input-range-99.9+copies-2+no-gain",
        "digital:0,5+output-bound+largest-weight-97",
        "digital-depthwise",
        "remap+copies-2",
        pytest.param("search-ranges+search-largest-weight", marks=pytest.mark.slow),
        pytest.param("search-output-bound+affine", marks=pytest.mark.slow),
    ],
)
def test_the_code_does_what_was_measured(model, samples, device, remedies, capsys, monkeypatch):
    monkeypatch.setattr(analogsim, "evaluate", partial(analogsim.evaluate, chips=2, times=("1y",)))
    subject = Subject(
        analogsim.convert(model, device, crossbar="standard"), [inputs for inputs, _ in samples], device, "standard"
    )
    try:
        variant = combine(read_remedies(remedies, subject), Variant(), subject)
    except ValueError as error:
        pytest.skip(str(error))
    twin = subject.twin(variant)
    asked = {"compensation": subject.compensation(variant, twin), "calibration": subject.calibration}
    expected = analogsim.evaluate(twin, samples, faults=subject.faults(variant, twin), **asked)
    exec(
        subject.code(variant),
        {"analogsim": analogsim, "model": model, "test": samples, "calibration": subject.calibration},
    )
    assert str(expected) == capsys.readouterr().out.strip("\n")


def test_what_comes_to_the_same_is_the_same():
    one, other = Variant(("a",)).with_digital(["x", "y"]), Variant(("b",)).with_digital(["y", "x"])
    assert one != other
    assert one.effect == other.effect


def test_what_is_searched_for_is_searched_for_once(model, samples, monkeypatch):
    subject = Subject(
        analogsim.convert(model, "pcm", crossbar="standard"), [inputs for inputs, _ in samples], "pcm", "standard"
    )
    variant = combine(read_remedies("search-output-bound+search-largest-weight", subject), Variant(), subject)
    assert not subject.is_found(variant)
    first = analogsim.get_ranges(subject.twin(variant))
    assert subject.is_found(replace(variant, compensation="column"))

    def again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("analogsim.recipes.judge.variant._searches", again)
    for name, found in analogsim.get_ranges(subject.twin(replace(variant, compensation="column"))).items():
        torch.testing.assert_close(found["output_bound"], first[name]["output_bound"])
    assert not subject.is_found(variant.with_mapping(copies=2))
    assert "searched=('largest weight', 'ranges')" in variant.key
