import numpy as np

from analogsim.evaluation.report import Report
from analogsim.recipes.judge.page import page, written


def test_all_text_is_escaped():
    report = Report(np.array([[0.5], [0.6]]), (1.0,), 0.9, "<score>", "pcm", (0, 1), None, unit="%")
    body = written(
        title="<a>",
        first=["<b>"],
        reports={"<c>": report},
        sections=[("<d>", ["<e>"], [["<f>"]])],
        notes=["<g>"],
        code={"<h>": "<i>"},
    )
    for letter in "abcdefghi":
        assert f"&lt;{letter}&gt;" in body
    for letter in "cdefi":
        assert f"<{letter}>" not in body
    assert body in page([body], "title")
