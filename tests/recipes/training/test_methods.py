from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from analogsim.recipes.config.options import Config
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.methods import METHODS, method_of
from analogsim.recipes.training.setup import check, load_data
from analogsim.training import SeveralDraws, SharpnessAware, plain_step

Tiny = Callable[..., Config]


def test_a_text_names_a_step_and_its_parameters() -> None:
    assert method_of("one-draw") is plain_step
    assert method_of("several-draws(count=4, of='cvar', share=0.25)") == SeveralDraws(4, "cvar", 0.25)
    assert method_of("sharpness-aware(radius=0.5)") == SharpnessAware(0.5)
    assert all(callable(method_of(name)) for name in METHODS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("several-draw", "training.step: there is no 'several-draw'; did you mean 'several-draws'. known are one-draw"),
        (
            "several-draws(count=0)",
            "training.step: 'several-draws.count=0.': SeveralDraws: count must be an integer >= 1",
        ),
        ("several-draws(counts=2)", "training.step: 'several-draws.counts=2.': .*unexpected keyword argument 'counts'"),
        ("several draws", "training.step: cannot read 'several draws'"),
    ],
)
def test_what_there_is_not_is_told_before_any_work(tiny: Tiny, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(tiny(f"training.step={text}"))


def trained(config: Config, path: Path, *, aware: bool = True, **options: object) -> Training:
    training = Training(config, load_data(config), aware=aware, path=path, **options)  # type: ignore[arg-type]
    training.set_random_state()
    while not training.done:
        training.run_epoch(lambda _: None)
    return training


def test_the_named_step_is_that_of_the_hardware_aware_network_alone(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("training.step=several-draws(count=2)", "optimization.epochs=1")
    named = trained(config, tmp_path / "named.pt")
    given = trained(tiny("optimization.epochs=1"), tmp_path / "given.pt", step=SeveralDraws(2))
    one = trained(tiny("optimization.epochs=1"), tmp_path / "one.pt")
    weights = [torch.cat([weight.flatten() for weight in each.model.parameters()]) for each in (named, given, one)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert load_checkpoint(tmp_path / "named.pt")["step"] == "analogsim.training.several_draws.SeveralDraws"
    plain = [
        trained(each, tmp_path / f"{n}.pt", aware=False)
        for n, each in enumerate((config, tiny("optimization.epochs=1")))
    ]
    assert all(torch.equal(*pair) for pair in zip(*(each.model.parameters() for each in plain), strict=True))
