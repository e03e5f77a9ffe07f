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


def test_clean_and_digital_where_they_differ():
    values = np.array([[0.5], [0.6]])
    given = {"reports": {}, "sections": [], "notes": [], "code": {}, "title": "", "first": []}
    apart = Report(values, (1.0,), 0.9, "accuracy", "pcm", (0, 1), None, digital=0.7)
    body = written(**given | {"reports": {"it": apart}})
    assert "<td>clean</td><td>90.00</td>" in body
    assert "<td>digital</td><td>70.00</td>" in body
    assert "digital: without converters" in body
    assert "digital" not in written(**given | {"reports": {"it": Report(values, (1.0,), 0.9, "a", "", (0, 1), None)}})
