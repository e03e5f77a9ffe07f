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


# Compiling takes seconds a layer: by default those that stand for the others.
_COMPILED_BY_DEFAULT = ("TestLinear", "TestConv2d", "TestEmbedding", "TestRegisteredRouted")


@pytest.hookimpl(tryfirst=True)  # before the others are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what the contract of layers compiles, but for a few of them."""
    for item in items:
        of_contract = isinstance(item.parent, pytest.Class) and item.name.startswith("test_compiled_it_is_one_graph")
        if of_contract and item.parent.name not in _COMPILED_BY_DEFAULT:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
