"""What holds for every test: one torch thread, and torch's global random state from seed 0."""

import pytest
import torch

# The networks are tiny, and threads that share busy cores wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
