"""What is left of many durations, and in which order calls take turns. By a clock of our own: no time is asserted."""

import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

CPU = torch.device("cpu")


class Clock:
    """Goes on when it is told to."""

    def __init__(self):
        self.now = 100.0
        self.calls = 0

    def perf_counter(self):
        return self.now

    def call(self, seconds, first=None):
        """A call that takes so long, and the first time longer."""
        left = [seconds if first is None else first]

        def call():
            self.calls += 1
            self.now += left.pop() if left else seconds

        return call


@pytest.fixture
def clock(monkeypatch):
    from benchmarks.harness import timing

    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_rounds_are_fair():
    from benchmarks.harness.timing import Spread, interleave

    log = []
    calls = {name: lambda name=name: log.append(name) for name in "abc"}
    seconds = interleave(calls, rounds=6, steps=1, device=CPU)
    assert list(seconds) == ["a", "b", "c"]
    assert all(values.shape == (6,) and (values >= 0).all() for values in seconds.values())
    assert "".join(log) == "abc" + "abc" + "acb" + "cab" + "cba" + "bca" + "bac"
    spread = Spread.of(seconds["a"])
    assert spread.least <= spread.low <= spread.median <= spread.high


def test_a_call_costs_its_burst_shared_out_and_not_what_it_made_ready(clock):
    from benchmarks.harness.timing import interleave

    calls = {"a": clock.call(0.5, first=64.0), "b": clock.call(2.0, first=64.0)}
    seconds = interleave(calls, rounds=3, steps=4, device=CPU)
    assert {name: values.tolist() for name, values in seconds.items()} == {"a": [0.5] * 3, "b": [2.0] * 3}
    assert clock.calls == 2 * (1 + 3 * (1 + 4))


@pytest.mark.parametrize(
    ("length", "tried", "burst"),
    [(2**-10, 1 + 4 + 16, 51), (1.0, 1, 1), (2**-6, 1, 3), (2**-30, 1 + 4 + 16 + 64 + 256 + 1024, 1000)],
)
def test_a_burst_is_as_long_as_50_ms_and_no_longer_than_1000_calls(clock, length, tried, burst):
    from benchmarks.harness.timing import interleave

    (values,) = interleave({"a": clock.call(length)}, rounds=2, steps=None, device=CPU).values()
    assert values.tolist() == [length] * 2
    assert clock.calls == 1 + tried + 2 * (burst + (burst > 1))


def test_what_slows_a_round_cancels_in_its_ratio(clock):
    from benchmarks.harness.timing import interleave

    log = []

    def slowed(seconds):
        def call():
            log.append(1)
            timed = max(0, len(log) - 4)  # before it were those that make ready
            clock.now += seconds * 2 ** (timed // 3)  # each round takes twice as long as the one before

        return call

    calls = {"a": slowed(1.0), "b": slowed(3.0), "c": slowed(0.5)}
    seconds = interleave(calls, rounds=4, steps=1, device=CPU)
    assert (seconds["b"] / seconds["a"]).tolist() == [3.0] * 4
    assert (seconds["c"] / seconds["a"]).tolist() == [0.5] * 4
    assert seconds["a"].tolist() == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize("before", [True, False])
def test_no_garbage_is_collected_meanwhile(before):
    from benchmarks.harness.timing import interleave

    seen, enabled = [], gc.isenabled()

    def fail():
        seen.append(gc.isenabled())
        if len(seen) == 3:
            raise KeyError

    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(KeyError):
            interleave({"a": fail}, rounds=5, steps=1, device=CPU)
        assert gc.isenabled() == before
    finally:
        (gc.enable if enabled else gc.disable)()
    assert seen == [False] * 3


@pytest.mark.parametrize(
    ("values", "least", "low", "median", "high"),
    [([5.0, 1.0, 4.0, 2.0, 3.0], 1, 2, 3, 4), ([3.0, 0.0, 2.0, 1.0], 0, 0.75, 1.5, 2.25), ([7.0], 7, 7, 7, 7)],
)
def test_median_and_quartiles(values, least, low, median, high):
    from benchmarks.harness.timing import Spread

    spread = Spread.of(np.array(values))
    assert spread == Spread(median=median, low=low, high=high, least=least)
    assert spread.as_dict() == {"median": median, "low": low, "high": high, "least": least}
    assert spread.as_ratio() == (f"{median:.2f}x", f"{low:.2f}-{high:.2f}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.345, "12.3 s"),
        (1234.5, "1234 s"),
        (1.0, "1 s"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (999.7, "1000 s"),
        (1.5e-3, "1.5 ms"),
        (9.996e-4, "1 ms"),
        (2.347e-5, "23.5 µs"),
        (9.996e-7, "1 µs"),
        (7e-9, "7 ns"),
    ],
)
def test_durations_have_three_digits(seconds, text):
    from benchmarks.harness.timing import duration

    assert duration(seconds) == text


def test_a_number_stands_with_where_it_is_from(tmp_path, monkeypatch):
    from benchmarks.harness import timing

    document = timing.environment(CPU)
    hardware, versions = document["hardware"], document["versions"]
    assert hardware["threads"] == torch.get_num_threads()
    assert (hardware["device"], hardware["gpu"], versions["cuda"]) == ("cpu", None, None)
    assert (versions["torch"], versions["numpy"]) == (torch.__version__, np.__version__)
    assert hardware["cpu"]
    monkeypatch.setattr(timing, "Path", lambda place: SimpleNamespace(read_text=lambda encoding: "flags\t: fpu\n"))
    assert timing.environment(CPU)["hardware"]["cpu"]
    monkeypatch.undo()
    file = tmp_path / "new" / "numbers.json"
    timing.write(file, document)
    assert json.loads(file.read_text(encoding="utf-8")) == document
    with pytest.raises(ValueError, match="JSON"):
        timing.write(file, {"median": float("nan")})
