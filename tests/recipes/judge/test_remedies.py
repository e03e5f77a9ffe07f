import pytest

import analogsim
from analogsim.chip import COMPENSATIONS, Gain
from analogsim.recipes.judge import remedies
from analogsim.recipes.judge.remedies import all_remedies, combine, depthwise, keep_digital, read_remedies
from analogsim.recipes.judge.variant import Subject, Variant


def test_a_compensation_with_a_name_is_a_remedy(subject, monkeypatch):
    monkeypatch.setitem(COMPENSATIONS, "twice", Gain("twice", lambda reference, now, layout: 2 * now.new_ones(())))
    assert combine(read_remedies("twice", subject), Variant(), subject).compensation == "twice"


def test_an_entry_in_the_table_is_a_remedy(subject, monkeypatch):
    mine = remedies.Remedy(
        "eight-copies", "copies", 9.0, "cells", lambda v, s: v.with_mapping(copies=8), lambda v, s: ""
    )
    monkeypatch.setattr(remedies, "REMEDIES", (*remedies.REMEDIES, mine))
    variant = combine(read_remedies("eight-copies", subject), Variant(), subject)
    assert subject.hardware(variant, "0")[0].laid.copies == 8


def test_hardware_comes_before_what_is_measured_on_it(subject):
    variant = combine(read_remedies("batch-norm+column+copies-2", subject), Variant(), subject)
    assert variant.remedies == ("copies-2", "batch-norm", "column")
    assert variant.compensation == "column+batch-norm"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colum", "there is no remedy 'colum'; did you mean 'column'"),
        ("digital:conv", "'conv' is no analog layer; there are 0, 1, 5"),
        ("global", "it is done already"),
        ("remap", "the device has no stuck cells"),
        ("crossbar", "one row of crossbars"),
        ("scale-per-column", "it is done already"),
        ("search-largest-weight+search-largest-weight", "it is done already"),
        ("digital:0,1,5", "nothing else is analog"),
    ],
)
def test_what_cannot_be_is_said(subject, text, said):
    with pytest.raises(ValueError, match=said):
        combine(read_remedies(text, subject), Variant(), subject)


def test_matched_outputs_are_remedies_and_the_data_that_they_need_are_named(subject):
    for name in ("affine", "bias"):
        variant = combine(read_remedies(name, subject), Variant(), subject)
        assert variant.compensation == f"global+{name}"
        code = subject.code(variant)
        assert code.startswith("# calibration: a loader of inputs, without use of labels")
        assert "calibration=calibration" in code
    other = combine(read_remedies("affine", subject), Variant(compensation="column+bias"), subject)
    assert other.compensation == "column+affine"  # of one kind one is taken


def test_what_the_hardware_does_not_have_is_said(model):
    subject = Subject(analogsim.convert(model, "gaussian"), [], "gaussian", "ideal")
    said = {name: remedy.why_not(Variant(), subject) for name, remedy in all_remedies().items()}
    assert said["column"] == "the device does not drift"
    assert said["input-range"] == "the crossbars have no converters"
    assert said["copies-2"] == said["search-largest-weight"] == "the device acts on weights, not on cells"
    assert said["search-ranges"] == said["search-output-bound"] == "the crossbars have no converters"
    assert said["batch-norm"] == "it needs data: give calibration=, a loader of inputs"


def test_depthwise_convolutions_are_found(subject):
    assert depthwise(subject) == ("1",)


def test_layers_by_name(subject):
    assert keep_digital(["1", "5"]).applied(Variant(), subject).digital == ("1", "5")
