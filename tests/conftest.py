"""What holds for every test: one torch thread, torch's global random state from seed 0, and a Ctrl-C that is heard."""

import signal

import pytest
import torch

# The networks are tiny, and threads that share busy cores wait for each other.
torch.set_num_threads(1)

# Who is started in the background of a script ignores Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
