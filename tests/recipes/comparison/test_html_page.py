from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from analogsim.evaluation.display import COLORS
from analogsim.recipes.comparison import html_page
from analogsim.recipes.comparison.comparison import Comparison
from analogsim.recipes.comparison.style import STYLE
from tests.recipes.reports import report, saved, shown


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += f"{data}\n"


EVIL = "<script>alert('x')</script>\"&$a_b$"


def test_the_page_escapes_every_name() -> None:
    made = report(device=EVIL)
    runs = (
        saved(EVIL, made, 1, params={EVIL: EVIL}, metrics={"loss": 1.0, EVIL: 2.0}),
        saved("b", None, 2, status=EVIL, params={EVIL: "1"}),
    )
    page = Page(Comparison(runs, notes=(EVIL,)).to_html())
    assert not {"script", "img", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert page.words.count(EVIL) >= 6


def test_the_page_needs_nothing_beside_it() -> None:
    text = shown().to_html()
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "img", "iframe", "link")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "a":
            assert (attributes["href"] or "").startswith("http://127.0.0.1:5000/#/")
        elif "xlink:href" in attributes:
            assert (attributes["xlink:href"] or "").startswith("#")
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text
    assert text == shown().to_html()  # the same runs, the same page


def test_the_page_holds_everything() -> None:
    text = shown().to_html()
    words = Page(text).words
    for expected in (
        "first run",
        "second",
        "third",
        "90.00 ± 1.41",
        "85.10",
        "no report, RUNNING",
        "lr",
        "0.3",
        "a note",
    ):
        assert expected in words
    assert "x" * 100 in words  # there is room for all of it
    assert "analogsim ui --uri sqlite:////data/mlflow.db" in words
    assert "same" not in words.split()
    links = [attributes["href"] for tag, attributes in Page(text).tags if tag == "a"]
    assert links[-1] == shown().link
    assert links[0] == f"http://127.0.0.1:5000/#/experiments/1/runs/{1:032x}?workflowType=machine_learning"
    assert "1 run:" in Comparison(shown().runs[:1]).to_html()


def test_the_drawing_takes_its_ink_from_the_page() -> None:
    reports = {mark: report(0.9 - index / 50) for index, mark in enumerate("ABCDEFGHIJKL")}
    drawn = html_page.drawing(reports)
    picture = ElementTree.fromstring(drawn[drawn.index("<svg") : drawn.index("</svg>") + 6])
    assert picture.tag.endswith("svg")
    assert "1mo" in picture.itertext()
    evil = ElementTree.fromstring(html_page.drawing({"A": report(device=EVIL)}))
    assert any(text.startswith(EVIL) for text in evil.itertext())  # neither markup nor a formula
    assert "currentColor" in drawn
    assert html_page._INK not in drawn
    assert "#000000" not in drawn
    assert all(color in drawn for color in COLORS)


def test_from_six_curves_on_a_band_is_seen_where_one_points() -> None:
    def drawn(count: int) -> str:
        return html_page.drawing({mark: report(0.9 - index / 50) for index, mark in enumerate("ABCDEF"[:count])}, "d")

    few, many = drawn(5), drawn(6)
    assert "{ opacity: 0; }" not in few
    assert "<small>" not in few
    ids = re.findall(r' id="(d-[^"]+)"', many)
    assert {f"d-{part}-{index}" for part in ("curve", "band", "reach", "name") for index in range(6)} <= set(ids)
    assert len(ids) == len(set(ids))
    assert '[id^="d-band-"] { opacity: 0; }' in many
    assert "svg:has(#d-reach-5:hover, #d-curve-5:hover, #d-name-5:hover) #d-band-5 { opacity: 1; }" in many
    assert "<script" not in many


def test_numbers_are_not_broken_and_long_texts_are() -> None:
    table = html_page.make_table(
        ["a"], [["run", "90.00 ± 1.41<br><small>85.10</small>", "1e-05", "", "x" * 100, "1s, 1h"]]
    )
    kinds = re.findall(r"<td( class=\"text\")?>", table)[1:]
    assert [bool(kind) for kind in kinds] == [False, False, False, True, True]
    assert "white-space: nowrap" in STYLE


def test_scores_are_in_percent_where_the_tables_are() -> None:
    metrics = {"test/accuracy/clean": 0.925, "validation/accuracy/drifted_1d_std": 0.01, "train/loss": 0.1234567}
    rows = Page(Comparison((saved("a", report(), metrics=metrics),)).to_html()).words
    assert re.search(r"test/accuracy/clean\s+92\.50 %", rows)
    assert re.search(r"drifted_1d_std\s+1\.00 %", rows)
    assert re.search(r"train/loss\s+0\.123457", rows)
    other = report(metric="perplexity", unit=None, higher_is_better=False)
    assert re.search(
        r"test/perplexity/clean\s+0\.925",
        Page(Comparison((saved("a", other, metrics={"test/perplexity/clean": 0.925}),)).to_html()).words,
    )
