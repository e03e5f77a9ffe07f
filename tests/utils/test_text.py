from __future__ import annotations

import pytest

from analogsim.utils.text import named_call, nearest, table


def test_columns_stand_in_line() -> None:
    assert table(("a", "b"), [("long", "1"), ("x", "22")]) == "a      b\n----  --\nlong   1\nx     22"


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("median", ("median", {})),
        (" median ( ) ", ("median", {})),
        ("successive-halving(reduction_factor=2)", ("successive-halving", {"reduction_factor": 2})),
        ("a(x=-1.5, y='b(c)', z=None, w=[1, 2])", ("a", {"x": -1.5, "y": "b(c)", "z": None, "w": [1, 2]})),
    ],
)
def test_a_name_with_parameters(text: str, call: tuple[str, dict[str, object]]) -> None:
    assert named_call(text, "study.pruner", "n=5") == call


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"study.pruner: cannot read ''; write a name, or a name with parameters such as \(n=5\)"),
        ("median 5", "cannot read 'median 5'"),
        ("median(5)", r"parameters in 'median\(5\)' need their names, such as n=5"),
        ("median(n=)", r"cannot read the parameters \(n=\)"),
        ("median(n=1, n=2)", "name each parameter in .* once"),
        ("median(n=1)(m=2)", "need their names"),
        ("median(n=print())", r"the value of n in .* must be a number, True, False or text in quotes, got print\(\)"),
        ("median(**{'n': 1})", "name each parameter"),
    ],
)
def test_what_is_no_call_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        named_call(text, "study.pruner", "n=5")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("gausian", ["Drift", "Gaussian"], "; did you mean 'Gaussian'?"),
        ("PCM", ["pcm", "pcm-hermes"], "; did you mean 'pcm'?"),
        ("pcm", [], ""),
        ("zzz", ["pcm"], ""),
    ],
)
def test_the_nearest_name_ends_an_error(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, known) == hint


def test_how_near_is_near_can_be_told() -> None:
    assert nearest("drift", ["draft"], cutoff=0.8) == "; did you mean 'draft'?"
    assert nearest("drift", ["draft"], cutoff=0.9) == ""
