from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analogsim
from analogsim.evaluation.course import ChipScores
from analogsim.evaluation.journal import Journal, as_journal
from tests.evaluation.test_monte_carlo import TIMES, batches, net

QUESTION: dict[str, Any] = {
    **{"weights": "w", "network": "n", "hardware": "h", "device": "pcm", "times": [1.0], "metric": "accuracy"},
    **{"score": "s", "data": "d", "compensation": None, "clean": 0.5},
}
CHIPS = [ChipScores(seed, (0.1 * seed, float("nan"))) for seed in range(5)]


def written(path: Path) -> bytes:
    for part in (CHIPS[:2], CHIPS[2:]):
        with Journal(path).opened(QUESTION) as record:
            record.add(part)
    return path.read_bytes()


def held(path: Path, **other: Any) -> list[int]:
    with Journal(path).opened({**QUESTION, **other}) as record:
        return sorted(record.done(range(99)))


def test_chips_come_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    assert written(path).count(b"\n") == 6
    with Journal(path).opened(QUESTION) as record:
        done = record.done([1, 3, 7])
    assert list(done) == [1, 3]
    np.testing.assert_array_equal(done[3].values, CHIPS[3].values)


def test_which_chips_are_kept_is_known_without_the_question(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    assert Journal(path).kept() == {}
    assert not path.exists()
    written(path)
    with Journal(path, "net", "without DAC").opened({**QUESTION, "hardware": "other"}) as record:
        record.add(CHIPS[3:4])
    parts = {("", "everything analog"): frozenset(range(5)), ("net", "without DAC"): frozenset({3})}
    assert Journal(path, "whatever").kept() == parts
    path.write_text("no journal\n")
    with pytest.raises(ValueError, match="journal"):
        Journal(path).kept()


def test_what_a_metric_keeps_comes_back_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    details = np.random.default_rng(0).normal(size=(2, 50)), np.array([0.1, float("nan")])
    for content in details:
        with Journal(path).opened(QUESTION) as record:
            seed = len(record.done(range(9)))
            record.add([ChipScores(seed, (0.5,), (), (content, content))])
    with Journal(path).opened(QUESTION) as record:
        for seed, content in enumerate(details):
            for each in record.done([seed])[seed].details:
                np.testing.assert_array_equal(each, content)


def test_a_torn_end_is_cut_off_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    content = written(path)
    ends = [at for at, byte in enumerate(content, 1) if byte == ord("\n")]
    for cut in range(1, len(content), 7):
        path.write_bytes(content[:cut])
        whole = sum(end <= cut for end in ends)
        if cut in ends:
            assert len(held(path)) == max(0, whole - 1)
            continue
        with pytest.warns(UserWarning, match=rf"from line {whole + 1}, was torn"):
            assert len(held(path)) == max(0, whole - 1)
        with Journal(path).opened(QUESTION) as record:
            record.add(chip for chip in CHIPS if chip.seed not in record.done(range(5)))
        assert held(path) == [0, 1, 2, 3, 4]
        assert path.read_bytes() == content


def test_zeros_behind_the_end_are_cut_off_too(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    content = written(path)
    path.write_bytes(content + bytes(300) + b"\n" + bytes(20))
    with pytest.warns(UserWarning, match="from line 7, was torn"):
        assert held(path) == [0, 1, 2, 3, 4]
    assert path.read_bytes() == content


def test_every_flipped_bit_before_the_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    content = written(path)
    last = content[:-1].rindex(b"\n") + 1
    for place in range(0, last, 11):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"line \d+ of .* is damaged; take that line out"):
            held(path)
    assert path.read_bytes() == damaged  # nothing was cut off


@pytest.mark.parametrize("name", [name for name in QUESTION if name != "device"])
def test_a_journal_of_another_question_says_what_differs(tmp_path: Path, name: str) -> None:
    path = tmp_path / "chips.jsonl"
    written(path)
    other = {"clean": 0.51, "times": [2.0]}.get(name, "another")
    with pytest.raises(ValueError, match=f"another question, with another {name} .*; give a file of its own"):
        held(path, **{name: other})
    assert held(path, device="told", clean=0.5 + 1e-9) == [0, 1, 2, 3, 4]


def test_parts_of_one_network_share_its_weights_and_data(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    written(path)
    part = Journal(path).of("without ADC")
    with part.opened({**QUESTION, "hardware": "another"}) as record:
        assert record.done(range(5)) == {}
        record.add(CHIPS[:1])
    with pytest.raises(ValueError, match="another weights"), part.opened({**QUESTION, "weights": "x"}):
        pass
    with Journal(path, name="plain").opened({**QUESTION, "weights": "x"}) as record:
        assert record.done(range(5)) == {}
    assert held(path) == [0, 1, 2, 3, 4]


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk\n")
    with pytest.raises(ValueError, match=r"notes.txt' is there and is no journal"):
        held(path)
    assert path.read_text() == "remember the milk\n"
    with pytest.raises(
        FileNotFoundError, match=r"journal: cannot write to it .* give a file in a folder .*where\.jsonl"
    ):
        held(tmp_path / "no" / "where.jsonl")
    with pytest.raises(IsADirectoryError, match="journal: cannot write to it"):
        held(tmp_path)
    for device in ("/dev/null", "/dev/full"):  # the latter can be read without end
        if Path(device).exists():
            with pytest.raises(ValueError, match=f"journal: '{device}' is no ordinary file"):
                held(Path(device))
    with pytest.raises(TypeError, match="must be the path of a file, got 3"):
        as_journal(3)  # type: ignore[arg-type]
    assert as_journal(None) is None


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    code = (
        "import sys; from analogsim.evaluation.journal import Journal\n"
        f"try:\n    with Journal({str(path)!r}).opened({QUESTION!r}): pass\n"
        "except ValueError as error: print(error)\nelse: print('free')"
    )

    def other() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()

    with Journal(path).opened(QUESTION) as record:
        record.add(CHIPS[:1])
        assert "is being written to by another process" in other()
        with pytest.raises(ValueError, match="by this process"), Journal(path).opened(QUESTION):
            pass
    assert held(path) == [0]


# Together with evaluate


def evaluated(path: Path, analog: Any = None, **options: Any) -> analogsim.Report:
    options = {"chips": 3, "times": TIMES, "journal": path, **options}
    return analogsim.evaluate(analog or analogsim.convert(net(), "pcm"), batches(), **options)


def test_the_same_call_goes_on_and_more_chips_may_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chips.jsonl"
    analog = analogsim.convert(net(), "pcm")
    programs: list[int] = []
    real = analogsim.chip.lifecycle.program
    monkeypatch.setattr(
        analogsim.chip.lifecycle, "program", lambda a, seed, **rest: (programs.append(seed), real(a, seed, **rest))[1]
    )
    whole = evaluated(path, analog, journal=None, chips=6)
    programs.clear()
    evaluated(path, analog, seed=1)
    assert programs == [1, 2, 3]
    assert evaluated(path, analog, chips=6).to_dict() == whole.to_dict()
    assert programs == [1, 2, 3, 0, 4, 5]
    assert evaluated(path, analog, chips=6).to_dict() == whole.to_dict()
    assert len(programs) == 6
    with pytest.raises(ValueError, match="another times"):
        evaluated(path, analog, times=("1s",))
    with pytest.raises(ValueError, match="another weights"):
        evaluated(path, analogsim.convert(net(), "pcm"))


def test_idle_layers_are_told_of_kept_chips_too(tmp_path: Path) -> None:
    from tests.evaluation.test_course import Half

    analog = analogsim.convert(Half(), "pcm")
    for _ in range(2):
        with pytest.warns(analogsim.ConversionWarning, match="without a part in the answers: 'idle'"):
            evaluated(tmp_path / "chips.jsonl", analog)


def test_the_layers_and_the_parts_of_a_network_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    analog = analogsim.convert(net(), [analogsim.Gaussian(0.3), analogsim.Drift()])
    data = batches()
    options: dict[str, Any] = {"chips": 2, "metric": "cross_entropy"}
    plain = analogsim.sensitivity(analog, data, **options), analogsim.ablate(analog, data, times=("1d",), **options)
    for _ in range(2):
        layers = analogsim.sensitivity(analog, data, journal=path, **options)
        parts = analogsim.ablate(analog, data, times=("1d",), journal=path, **options)
        kept = layers.keep_digital(layers.clean + 1e-9, journal=path)
        assert (str(layers), str(parts)) == tuple(map(str, plain))
        assert str(kept) == str(plain[0].keep_digital(layers.clean + 1e-9))
        lines = path.read_text().splitlines()
    questions = sum('"question"' in line for line in lines)
    assert len(lines) == 3 * questions  # two chips each, none twice
    assert len(set(lines)) == len(lines)
