from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from analogsim.utils.digests import SEAL, digest, is_as_written, seal_text, sealed, unsealed, without_addresses


@dataclass
class Point:
    x: float
    inside: object = None


class Locked:
    def __init__(self) -> None:
        self.lock = threading.Lock()


def make(rate: float, limit: float = 0.5):
    return lambda seed: seed * rate > limit


def net(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4, bias=bias), nn.ReLU())


PAIRS = [
    (1, 1.0),
    (1, True),
    ("1", b"1"),
    ((1, 2), [1, 2]),
    (("ab", "c"), ("a", "bc")),
    (torch.zeros(2), torch.zeros(3)),
    (torch.zeros(4), torch.zeros(2, 2)),
    (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
    (torch.zeros(2), torch.tensor([0.0, -0.0])),
    (torch.ones(2, dtype=torch.bfloat16), torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)),
    (np.arange(3), np.arange(3.0)),
    ({"a": 1}, {"a": 2}),
    ({1, 2}, {1, 3}),
    (Point(1.0), Point(1.0, "x")),
    (make(0.1), make(0.2)),
    (make(0.1), make(0.1, 0.6)),
    (functools.partial(max, 1), functools.partial(max, 2)),
    (net(), net(bias=False)),
    (nn.Linear, nn.Conv2d),
    (np.random.default_rng(0), np.random.default_rng(1)),
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda value: type(value).__name__)
def test_what_differs_has_another_digest(one: object, other: object) -> None:
    assert digest(one) != digest(other)


def test_what_is_the_same_has_the_same_digest() -> None:
    whole = torch.arange(12.0)
    for one, other in (
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        (make(0.1), make(0.1)),
        (net(), net()),
        (whole[::2], whole[::2].clone()),
        (Point(2.0, torch.ones(3)), Point(2.0, torch.ones(3))),
        (Locked(), Locked()),
        (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
    ):
        assert digest(one) == digest(other)
    twice = [0, 1]
    assert digest([twice, twice]) == digest([[0, 1], [0, 1]])  # it does not matter which are one object


def test_a_value_that_holds_itself() -> None:
    ring: list[object] = [1]
    ring.append(ring)
    other: list[object] = [2]
    other.append(other)
    assert digest(ring) != digest(other)


def test_it_is_the_same_in_another_process() -> None:
    code = (
        "import torch; from torch import nn; from analogsim.utils.digests import digest\n"
        "torch.manual_seed(0); print(digest((nn.Linear(3, 4), {'a', 'b', 'c'}, nn.functional.relu)))"
    )
    torch.manual_seed(0)
    mine = digest((nn.Linear(3, 4), {"a", "b", "c"}, nn.functional.relu))
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == mine


def test_addresses_are_left_out() -> None:
    assert without_addresses("f(<function g at 0x7f2A10>, 3)") == "f(<function g>, 3)"


CONTENT = {"b": [0.1, -2.5e-30, float("nan")], "a": {"text": "µS", "none": None}, "count": 10**20}


def test_values_come_back_through_json() -> None:
    text = json.dumps(sealed(CONTENT))
    assert json.dumps(unsealed(json.loads(text))) == json.dumps(CONTENT)
    assert json.dumps(unsealed(json.loads(json.dumps(CONTENT)))) == json.dumps(CONTENT), "of before there were digests"
    again = {key: sealed(CONTENT)[key] for key in reversed(sealed(CONTENT))}
    assert unsealed(again).keys() == CONTENT.keys(), "in any order"


def test_other_values_are_refused() -> None:
    for changed in ({"count": 1}, {"more": 0}, {SEAL: ""}, {SEAL: None}):
        with pytest.raises(ValueError, match="is not what was written: damaged, or changed by hand"):
            unsealed({**sealed(CONTENT), **changed})


def test_every_bit_of_a_text_counts() -> None:
    """But those of the digest's own line, which say nothing."""
    text = 'a = 1  # µS\n\n[b]\nc = "x"\n'
    whole = seal_text(text).encode()
    assert is_as_written(text)
    assert is_as_written(whole.decode())
    assert is_as_written(whole.decode().replace("\n", "\r\n")), "as Windows and git write it"
    draw = random.Random(0)
    for _ in range(200):
        place = draw.randrange(8 * len(text.encode()))
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        assert not is_as_written(flipped.decode(errors="replace")), place
