from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import pytest

from analogsim.recipes.config.reader import Reader, Table, every_option, members_of, type_name
from analogsim.recipes.config.toml import from_mapping, load_toml, option, section

READER = Reader("there", ("a.b", "epochs"))


@dataclass(frozen=True)
class Words(Table):
    text: str

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Self:
        if "text" not in value:
            raise ValueError("text: is missing")
        return cls(value["text"])

    def to_plain(self) -> dict[str, Any]:
        return {"text": self.text}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (float, 3, 3.0),
        (int, 3, 3),
        (bool, True, True),
        (str, "x", "x"),
        (Literal["a", 1], 1, 1),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[int, str], [1, "x"], (1, "x")),
        (Words, {"text": "x"}, Words("x")),
        (Words, Words("y"), Words("y")),
    ],
)
def test_values_of_each_kind(kind: Any, value: Any, expected: Any) -> None:
    found = READER.read_one(kind, value, "n")
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (float, True, r"there: n: wanted float, got True \(bool\)"),
        (float, "3", "wanted float"),
        (float, float("inf"), "wanted a finite number, got inf"),
        (float, float("nan"), "wanted a finite number, got nan"),
        (int, True, "wanted int, got True"),
        (int, 3.0, "wanted int, got 3.0"),
        (str, 3, "wanted str, got 3"),
        (Literal[1], True, "wanted 1, got True"),
        (tuple[int, ...], 3, r"wanted list\[int, \.\.\.\], got 3"),
        (tuple[int, ...], [1, "x"], r"there: n\[1\]: wanted int, got 'x'"),
        (tuple[int, str], [1], r"wanted list\[int, str\], got \[1\]"),
        (Words, "x", "wanted a table, got 'x'"),
        (Words, {}, "there: n.text: is missing"),
    ],
)
def test_values_that_are_none_of_a_kind(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        READER.read_one(kind, value, "n")


def test_a_kind_that_no_option_can_be() -> None:
    with pytest.raises(TypeError, match=r"n: an option cannot be of type bytes; see analogsim\.recipes\.config\.toml"):
        READER.read_one(bytes, b"", "n")


def test_unions_take_the_exact_type_first() -> None:
    assert READER.read(float | int | None, 3, "n") == 3
    assert isinstance(READER.read(float | int, 3, "n"), int)
    assert READER.read(int | None, "none", "n") is None
    assert members_of(int | None) == [int, type(None)]
    assert type_name(int | None) == "int | none"
    with pytest.raises(ValueError, match=r"wanted float \| int, got 'x'"):
        READER.read(float | int, "x", "n")


def test_the_nearest_option_is_guessed() -> None:
    assert "did you mean 'epochs'?" in str(READER.unknown("epoch", ["lr"]))
    assert "did you mean 'a.b'?" in str(READER.unknown("c.b", ["lr"]))


def test_options_by_their_dotted_names() -> None:
    @dataclass(frozen=True)
    class Inner:
        lr: float = option(0.1, "rate")

    @dataclass(frozen=True)
    class Outer:
        seed: int = option(0, "of all")
        inner: Inner = section(Inner)

    Outer.__annotations__ = {"seed": int, "inner": Inner}
    assert [name for name, _, _ in every_option(Outer)] == ["seed", "inner.lr"]


def test_a_bare_number_is_a_time_in_seconds() -> None:
    @dataclass(frozen=True)
    class Timed:
        at: str = option("1d", "when", time=True)
        several: tuple[str, ...] | None = option(None, "when", time=True)
        name: str = option("x", "no time")

    assert from_mapping(Timed, {"at": 3600, "several": [1, "1w", 0.5]}) == Timed("1h", ("1s", "1w", "0.5s"))
    assert load_toml(Timed, None, ["at=90", "several=60,1day"]) == Timed("90s", ("1min", "1day"))
    assert load_toml(Timed, None, ["several=5"]) == Timed(several=("5s",))
    for wrong in ({"at": True}, {"name": 3}, {"several": 3}, {"at": float("inf")}, {"at": 10**400}):
        with pytest.raises(ValueError, match="wanted"):
            from_mapping(Timed, wrong)
