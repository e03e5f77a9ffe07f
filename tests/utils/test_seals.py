"""What is kept with its digest is noticed when it is another one."""

from __future__ import annotations

import json
import random

import pytest

from analogsim.utils.seals import SEAL, is_as_written, seal_text, sealed, unsealed

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
