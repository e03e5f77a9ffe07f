"""What is wrong is refused by an error of ours, in one line, at once: a generator of bad input, and what comes of it.

Every public name is called rightly, and then with one argument after the other replaced by things that are no right
value of it. What comes of a case is one of five: a clear error (an `AnalogsimError` of one readable line), harmless (an
odd value that works: a large seed), internal (another error, whose words are not meant for users), silent (what must be
refused was taken), a hang. The last three must not be.
"""

from __future__ import annotations

import collections
import contextlib
import inspect
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.device.registry import factory

PATIENCE = 20  # seconds after which a case hangs
HUGE = 10**400

# By what a parameter takes: what it must refuse, and what it may take or refuse.
WRONG: dict[str, tuple[Any, ...]] = {
    "flag": ("no", "False", "", 0, 1, 2.0, None, [], [True], object(), nn.ReLU(), float("nan")),
    "whole": ("3", "", 1.5, float("nan"), float("inf"), None, [], [3], {}, object(), nn.ReLU(), True, HUGE, b"3"),
    "number": ("3", "", float("nan"), None, [], [1.0], {}, object(), nn.ReLU(), 1j, torch.ones(2), True, HUGE, b"3"),
    "time": ("", "h", "1x", "-1s", -1, float("nan"), float("inf"), None, [], {}, object(), True, 1j, HUGE, "1e999s"),
    "text": (3, 1.5, None, [], {}, object(), nn.ReLU(), True, "no such thing", "", b"pair", HUGE),
    "network": (None, "lenet5", 3, [], {}, object(), nn.Linear, torch.ones(2)),
    "twin": (None, "lenet5", 3, [], {}, object(), nn.Linear, torch.ones(2), nn.Linear(4, 3)),
    "loader": (None, "digits", 3, 1.5, True, [], {}, object(), nn.Linear(4, 3), [3], ["a"], [None], HUGE),
    "device": (3, 1.5, [], object(), nn.ReLU(), True, "", "pmc", "pcm(", "pcm(std=)", "pcm(no=3)", b"pcm", HUGE),
    "crossbar": (3, 1.5, [], object(), nn.ReLU(), True, "", "idael", "standard(", "standard(bits=3)", None, HUGE),
    "file": (3.5, [], {}, object(), "", "no/such/folder/x", "\0", nn.ReLU()),
    "anything": (object(),),
}
ODD: dict[str, tuple[Any, ...]] = {
    "flag": (),
    "whole": (-1, 0, 2**31, 2**63, 10**30, -(10**30)),
    "number": (-1, -1.0, 0, 1e308, -1e308, 5e-324, float("inf"), -float("inf"), 10**30),
    "time": (1e308, "1e300y", 5e-324, 10**30),
    "text": (),
}


@dataclass(frozen=True)
class Case:
    """One call with one wrong argument.

    Args:
        name: of what is called, with the argument.
        value: of the argument.
        call: with that value.
        must: whether it must be refused; else it may work too.
    """

    name: str
    value: Any
    call: Callable[[Any], object]
    must: bool

    def __str__(self) -> str:
        text = "10**400" if self.value is HUGE else repr(self.value)
        return f"{self.name}={text[:60]}"


class Hang(BaseException):
    """A case that does not come back."""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the main thread when the time is up."""

    def ring(_: int, __: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(case: Case) -> tuple[str, str]:
    """What comes of a case, and what was said."""
    try:
        with alarm(PATIENCE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.call(case.value)
    except analogsim.AnalogsimError as error:
        told = str(error)
        clear = told.strip() and "\n" not in told.strip() and len(told) < 1500
        return ("clear" if clear else "internal"), told
    except Hang:
        return "hang", ""
    except OSError as error:  # of the operating system, which says the file
        return "clear", str(error)
    except Exception as error:
        return "internal", f"{type(error).__name__}: {error}"
    return ("silent" if case.must else "harmless"), ""


def judge(cases: Sequence[Case]) -> tuple[collections.Counter[str], list[str]]:
    """How often each outcome came, and a line for each case that is none of the first two."""
    counts: collections.Counter[str] = collections.Counter()
    bad = []
    for case in cases:
        found, told = outcome(case)
        counts[found] += 1
        if found not in ("clear", "harmless"):
            bad.append(f"{found:9} {case} {' '.join(told.split())[:160]}")
    return counts, bad


# How each public name is called rightly.


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def data(count: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 4, generator=generator)
    return [(inputs, torch.arange(count) % 3)]


def inputs() -> list[torch.Tensor]:
    return [data()[0][0]]


def twin(device: str = "pcm", crossbar: str = "ideal") -> nn.Module:
    return analogsim.convert(network(), device, crossbar=crossbar)


def on_chip() -> nn.Module:
    analog = twin()
    analogsim.program(analog)
    return analog


def calibrated() -> nn.Module:
    return twin(crossbar="standard(input_range='calibrated')")


def report(**changes: Any) -> analogsim.Report:
    analog = twin()
    return analogsim.evaluate(analog, data(), chips=2, times=["1s"])


def adapted() -> nn.Module:
    analog = twin()
    analogsim.add_adapters(analog, 1)
    return analog


RIGHT: dict[str, Callable[[], dict[str, Any]]] = {
    "ClipSchedule": lambda: {"analog": twin(), "start": 4.0, "end": 2.0, "steps": 3},
    "NoiseSchedule": lambda: {"analog": twin(), "shape": "linear", "steps": 3},
    "ablate": lambda: {"analog": twin(), "loader": data(), "chips": 1, "times": ["1s"]},
    "adapter_parameters": lambda: {"analog": adapted()},
    "add_adapters": lambda: {"analog": twin(), "rank": 1},
    "analog_macs": lambda: {"analog": twin()},
    "as_crossbar": lambda: {"crossbar": "standard"},
    "as_device_model": lambda: {"device": "pcm"},
    "audit": lambda: {"analog": twin()},
    "calibrate": lambda: {"analog": calibrated(), "loader": inputs()},
    "calibrate_outputs": lambda: {"analog": on_chip(), "inputs": inputs()},
    "clip_weights": lambda: {"analog": twin(), "sigmas": 2.0},
    "compare_plot": lambda: {"reports": {"a": report()}},
    "compare_table": lambda: {"reports": {"a": report()}},
    "convert": lambda: {"model": network(), "device": "pcm"},
    "distillation_loss": lambda: {"output": torch.randn(4, 3), "target": torch.randn(4, 3)},
    "draw_faults": lambda: {"analog": twin()},
    "drift": lambda: {"analog": on_chip(), "t": "1h"},
    "erase": lambda: {"analog": on_chip()},
    "evaluate": lambda: {"analog": twin(), "loader": data(), "chips": 1, "times": ["1s"]},
    "fine_tune": lambda: {"analog": on_chip(), "data": inputs(), "steps": 1},
    "get_ranges": lambda: {"analog": twin()},
    "load_adapters": lambda: {"analog": adapted(), "path": "no such file"},
    "load_chip": lambda: {"analog": twin(), "path": "no such file"},
    "load_device": lambda: {"path": "no such file"},
    "macs": lambda: {"model": network()},
    "prepare": lambda: {"analog": twin(), "inputs": inputs(), "budget": 0.2, "chips": 2},
    "program": lambda: {"analog": twin()},
    "range_parameters": lambda: {"analog": calibrated()},
    "reestimate_batch_norm": lambda: {"analog": twin(), "loader": inputs()},
    "remove_adapters": lambda: {"analog": adapted()},
    "remap": lambda: {"analog": twin(), "faults": analogsim.draw_faults(twin())},
    "save_adapters": lambda: {"analog": adapted(), "path": "/dev/null"},
    "save_chip": lambda: {"analog": on_chip(), "path": "/dev/null"},
    "save_device": lambda: {"device": analogsim.as_device_model("pcm"), "path": "/dev/null"},
    "search_percentile": lambda: {"analog": twin(), "inputs": inputs(), "percentiles": (100.0, 99.0), "chips": 1},
    "search_ranges": lambda: {"analog": calibrated(), "inputs": inputs(), "chips": 1},
    "seconds": lambda: {"time": "1h"},
    "sensitivity": lambda: {"analog": twin(), "loader": data(), "chips": 1},
    "set_noise_scale": lambda: {"analog": twin(), "scale": 1.0},
    "set_ranges": lambda: {"analog": calibrated(), "ranges": {}},
    "set_recompute": lambda: {"analog": twin(), "recompute": True},
    "set_train_times": lambda: {"analog": twin(), "times": ("1s", "1d")},
    "summary": lambda: {"analog": twin()},
    "to_digital": lambda: {"analog": twin()},
    "use_compiled_noise": lambda: {"enabled": False},
    "weight_std": lambda: {"analog": twin(), "draws": 2},
}

# What a parameter takes, where its annotation does not say it.
TAKES = {
    "analog": "twin",
    "model": "network",
    "loader": "loader",
    "inputs": "loader",
    "data": "loader",
    "device": "device",
    "effect": "device",
    "crossbar": "crossbar",
    "path": "file",
    "t": "time",
    "time": "time",
    "budget": "time",
    "keep_learned": "flag",
}


def kind_of(name: str, annotation: str) -> tuple[str, bool]:
    """What a parameter takes, and whether None is a right value."""
    parts = [part.strip() for part in annotation.replace("float | str", "time").split("|")]
    optional = "None" in parts
    if name in TAKES:
        return TAKES[name], optional
    named = {"bool": "flag", "int": "whole", "float": "number", "time": "time", "str": "text"}
    found = [named[part] for part in parts if part in named]
    if len(found) == 1 and len(parts) == 1 + optional:
        return found[0], optional
    return "anything", True


def cases_of(name: str, call: Callable[..., object], right: Callable[[], dict[str, Any]]) -> Iterator[Case]:
    """One case for each parameter and value."""
    for parameter in inspect.signature(call).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name.startswith("_"):
            continue
        kind, optional = kind_of(parameter.name, str(parameter.annotation))
        if (name, parameter.name) == ("summary", "analog"):  # of a digital network too
            kind = "network"

        def one(value: Any, at: str = parameter.name) -> object:
            answer = call(**(right() | {at: value}))
            if isinstance(answer, contextlib.AbstractContextManager):
                with answer:
                    pass
            return answer

        for must, values in ((True, WRONG[kind]), (False, ODD.get(kind, ()))):
            for value in values:
                if optional and value is None:
                    continue
                yield Case(f"{name}({parameter.name}", value, one, must)


def entry_cases() -> list[Case]:
    """All public functions and schedules."""
    return [case for name in RIGHT for case in cases_of(name, getattr(analogsim, name), RIGHT[name])]


def value_cases() -> list[Case]:
    """All parameters of the effects, of mappings, crossbars and wires, and of the device models by name."""
    makers: dict[str, Callable[..., object]] = {
        **{one: getattr(analogsim, one) for one in ("Drift", "Gaussian", "Quantization", "ReadNoise", "StuckAt")},
        **{one: getattr(analogsim, one) for one in ("Mapping", "Crossbar", "Wires")},
        **{f"devices.{name}": factory(name) for name in analogsim.available_devices()},
    }
    return [case for name, maker in makers.items() for case in cases_of(name, maker, dict)]


def told(cases: Sequence[Case]) -> None:
    """Fail for each case whose outcome must not be, with all counts."""
    counts, bad = judge(cases)
    print(f"{len(cases)} cases: {dict(counts)}")
    assert not bad, f"{dict(counts)}\n" + "\n".join(bad)


def test_what_a_value_takes() -> None:
    told(value_cases())


def test_what_a_public_name_takes() -> None:
    """A part of the cases, another one of each parameter's."""
    told(entry_cases()[::41])


@pytest.mark.slow
def test_all_that_a_public_name_takes() -> None:
    told(entry_cases())


def test_there_are_many_cases() -> None:
    assert len(value_cases()) + len(entry_cases()) > 3000
    functions = {name for name in analogsim.__all__ if inspect.isfunction(getattr(analogsim, name))}
    no_values = {"available_devices", "fit_device", "param", "programmed", "register", "register_layer"}
    # The last one writes to a store wherever it is called; its own tests give it what is wrong.
    others = {"register_routed", "same_noise", "log_report"}
    assert functions - set(RIGHT) <= no_values | others, "give each public name a right call"


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda value: analogsim.seconds(value), "clear"),
        (lambda value: int(value), "internal"),
        (lambda value: value, "silent"),
        (lambda value: time.sleep(5), "hang"),
    ],
)
def test_outcomes_are_told_apart(call: Callable[[Any], object], found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PATIENCE", 0.2)
    case = Case("f(x", "x", call, True)
    assert outcome(case)[0] == found
    assert judge([case])[0] == {found: 1}
    assert outcome(Case("f(x", "x", lambda value: value, False))[0] == "harmless"
