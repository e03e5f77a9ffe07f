import json

import numpy as np
import pytest

from analogsim.evaluation.report import Report
from analogsim.recipes.judge.judgement import RECOMMENDED, Judgement, Row, page_of
from analogsim.recipes.judge.paired import Difference


def report(mean: float) -> Report:
    values = mean + np.array([[0.0, -0.01], [0.01, -0.03], [-0.01, -0.02]])
    return Report(values, (1.0, 86400.0), 0.97, "accuracy", "pcm", (0, 1, 2), "global", 0.1, 100)


@pytest.fixture
def judgement() -> Judgement:
    return Judgement(
        RECOMMENDED,
        "Take <it> & go.",
        report(0.8),
        Difference(0.17, 0.01, 7.0),
        "1d",
        final=report(0.95),
        gain=Difference(0.15, 0.01, 5.0),
        recommended=("column", "batch-norm"),
        command="analogsim judge RUN --apply column+batch-norm",
        python="print(1 < 2)",
        parts=(Row("PCMDrift", 0.9, 0.01, 0.1, 0.02, True, "", 3),),
        layers=(Row("fc", 0.9, float("nan"), 0.1, 0.02, True, "5.0%", 3),),
        remedies=(Row("column", 0.95, 0.01, 0.15, 0.01, True, "a gain", 3), Row("no-gain", 0.5, 0.1, -0.3, 0.02, True)),
        untried=(("remap", "the device has no stuck cells"),),
        notes=("A note.",),
        guess=0.1,
        seconds=12.0,
        minutes=10.0,
    )


def test_the_text_says_everything(judgement):
    text = str(judgement)
    for wanted in (
        "clean 97.00",
        "Verdict: recommended.",
        "after 1d",
        "column+batch-norm",
        "PCMDrift",
        "+10.00 ± 2.00",
        "helps",
        "hurts",
        "no stuck cells",
        "A note.",
        "--apply",
    ):
        assert wanted in text


def test_to_dict_and_back(judgement):
    again = Judgement.from_dict(json.loads(json.dumps(judgement.to_dict())))
    assert str(again) == str(judgement)
    assert again.gain == judgement.gain
    assert Judgement.from_dict(judgement.replace(final=None, gain=None).to_dict()).final is None


def test_the_page_needs_nothing_beside_it(judgement):
    page = judgement.to_html()
    assert "Take &lt;it&gt; &amp; go." in page
    assert "print(1 &lt; 2)" in page
    assert "<svg" in page
    assert "color-scheme: light dark" in page
    for outside in ("<script", "<link", "src=", "@import", "url("):
        assert outside not in page.replace("url(#", "")


def test_one_page_of_several(judgement):
    page = page_of({"plain": judgement, "hardware-aware": judgement})
    assert page.count("<h1>") == 2
    assert page.count("<!DOCTYPE html>") == 1
