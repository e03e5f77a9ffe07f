"""What holds for every test: one torch thread, torch's global random state from seed 0, and signals that are heard."""

import signal
from collections.abc import Generator
from typing import Any

import pytest
import torch
from _pytest.doctest import DoctestModule

# The networks are tiny, and threads that share busy cores wait for each other.
torch.set_num_threads(1)

# Who is started in the background of a script, or by nohup, ignores these, and so would the programs that tests start.
for _name, _handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, _name) and signal.getsignal(getattr(signal, _name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, _name), _handler)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[Any], list[Any]]:
    """Of files of tests, their tests alone.

    Where the import of a module fails, its doctests are left out, and with them, without a word, its tests.
    """
    found = yield
    return [collector for collector in found if not isinstance(collector, DoctestModule)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
