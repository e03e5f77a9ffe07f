from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import to_mapping
from analogsim.recipes.training.processes import ALONE, Group
from analogsim.recipes.training.state import RandomStates, check_options, name_of
from analogsim.training import plain_step

CPU = torch.device("cpu")
PLAIN_STEP = name_of(plain_step)


def test_random_numbers_go_on_where_they_were_taken() -> None:
    states = RandomStates(7, CPU, ALONE)
    states.put()
    torch.randn(3)
    torch.randperm(4, generator=states.shuffle)
    states.take()
    kept = states.state_dict()
    expected = torch.randn(3), torch.randperm(4, generator=states.shuffle)
    again = RandomStates(8, CPU, ALONE)
    again.load_state_dict(kept)
    again.put()
    assert torch.equal(torch.randn(3), expected[0])
    assert torch.equal(torch.randperm(4, generator=again.shuffle), expected[1])
    assert "shuffle" in kept["random"]  # a checkpoint may be read twice


def test_another_number_of_processes_is_told() -> None:
    kept = RandomStates(7, CPU, ALONE).state_dict()
    with pytest.warns(UserWarning, match=r"of a training in 1 process\(es\), now there are 2"):
        RandomStates(7, CPU, Group(1, 2)).load_state_dict(kept)


def test_what_touches_the_weights_has_to_be_the_same(tiny: Callable[..., Config]) -> None:
    config = tiny()
    content: dict[str, Any] = {"config": to_mapping(config), "aware": True}  # of before steps had names

    def check(now: Config, aware: bool = True, method: str = PLAIN_STEP) -> None:
        check_options(content, now, aware=aware, method=method, source="checkpoint 'c'")

    check(tiny("evaluation.chips=7", "out=elsewhere", "data.folder=there"))
    with pytest.raises(ValueError, match="checkpoint 'c' is of the other network"):
        check(config, aware=False)
    with pytest.raises(ValueError, match="checkpoint 'c' was trained with seed=0, now it is 1; go on with"):
        check(tiny("seed=1"))
    with pytest.raises(ValueError, match=r"by steps of .*plain_step, now they are of mine\.sharp; .*step="):
        check(config, method="mine.sharp")
