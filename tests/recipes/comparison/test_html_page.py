from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from analogsim.recipes.comparison import html_page
from analogsim.recipes.comparison.comparison import Comparison
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
    assert links[0] == f"http://127.0.0.1:5000/#/experiments/1/runs/{1:032x}"
    assert "1 run:" in Comparison(shown().runs[:1]).to_html()


def test_the_drawing_takes_its_ink_from_the_page() -> None:
    reports = {mark: report(0.9 - index / 50) for index, mark in enumerate("ABCDEFGHIJKL")}
    colors = dict(zip(reports, html_page.COLORS, strict=False))
    drawn = html_page.drawing(reports, colors)
    picture = ElementTree.fromstring(drawn)
    assert picture.tag.endswith("svg")
    assert "1mo" in picture.itertext()
    evil = ElementTree.fromstring(html_page.drawing({"A": report(device=EVIL)}, colors))
    assert any(text.startswith(EVIL) for text in evil.itertext())  # neither markup nor a formula
    assert "currentColor" in drawn
    assert html_page._INK not in drawn
    assert "#000000" not in drawn
    assert all(color in drawn for color in colors.values())
    assert len(set(colors.values())) == 12
