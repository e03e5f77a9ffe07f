"""The Hugging Face Trainer with a twin: the example, and what its arguments do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import analogsim

pytestmark = [
    pytest.mark.slow,  # transformers alone takes seconds to import
    # Deprecations inside the frameworks are theirs to heed; the last is about the disk of a checkpoint.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:mtime may not be reliable on this filesystem"
    ),
]


@pytest.fixture(scope="module")
def example(load: Callable[[str], ModuleType]) -> ModuleType:
    os.environ["HF_HUB_OFFLINE"] = "1"
    for package in ("transformers", "accelerate"):
        pytest.importorskip(package, reason='needs pip install "analogsim-torch[frameworks]"')
    return load("huggingface_trainer")


def twin(example: ModuleType, device: object = "pcm") -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = example.network()
    return model, analogsim.convert(model, device)


def batch(example: ModuleType) -> dict[str, Any]:
    """32 reviews that training does not see, as the trainer's collator puts them together."""
    reviews = example.reviews(32, 1)
    return {name: torch.tensor([review[name] for review in reviews]) for name in reviews[0]}


def training(example: ModuleType, analog: nn.Module, folder: Path, **options: Any) -> Any:
    """A trainer of few steps: two epochs of four batches."""
    few = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "disable_tqdm": True}
    return example.trainer(analog, folder, example.reviews(64, 0), example.reviews(32, 1), **{**few, **options})


def schedule_of(trainer: Any, example: ModuleType) -> Any:
    (hardware,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, example.HardwareCallback))
    return hardware.course.schedules["noise"]


def same(a: nn.Module, b: nn.Module) -> bool:
    state = b.state_dict()
    return all(torch.equal(value, state[name]) for name, value in a.state_dict().items()) and bool(state)


def test_the_example_learns_and_its_network_survives_a_year(example: ModuleType, tmp_path: Path) -> None:
    report = example.main(tmp_path)
    assert report.clean > 0.9
    assert report.mean.min() > 0.88
    assert report.values.shape == (10, 5)


def test_what_is_learned_is_no_accident_of_the_words(example: ModuleType) -> None:
    """Praise and blame stand beside "not" as often as not, so that words alone do not tell the label."""
    data = example.reviews(2000, 0)
    good = [example.WORDS.index(word) for word in example.GOOD]
    hits = [(sum(word in good for word in each["input_ids"]) > 1) == each["labels"] for each in data]
    # 5 standard errors around a half, and the little that reviews of one clause without "not" give away.
    assert abs(sum(hits) / len(hits) - 0.5) < 5 * 0.5 / len(hits) ** 0.5
    assert 0.4 < sum(each["labels"] for each in data) / len(data) < 0.6


def test_an_evaluation_needs_a_chip(example: ModuleType, tmp_path: Path) -> None:
    """With one programmed the trainer reports that chip; without, the error says what to do."""
    _, analog = twin(example)
    trainer = training(example, analog, tmp_path)
    with pytest.raises(analogsim.NotProgrammedError, match=r"analogsim.program\(analog, seed=...\) first"):
        trainer.evaluate()
    trainer.callback_handler.pop_callback(example.HardwareCallback)
    with pytest.raises(analogsim.NotProgrammedError):
        trainer.train()
    for t in ("1s", "1y"):
        with analogsim.programmed(analog, seed=3, t=t):
            loss = trainer.evaluate()["eval_loss"]
        given = batch(example)
        with analogsim.programmed(analog, seed=3, t=t) as answers, torch.no_grad():
            by_hand = nn.functional.cross_entropy(answers(**given).logits, given["labels"])
        assert loss == pytest.approx(float(by_hand), rel=1e-5)


OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "bf16": {"bf16": True},
    "accumulation": {"gradient_accumulation_steps": 2},
    "label smoothing": {"label_smoothing_factor": 0.1},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "reentrant": {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
    "compiled": {"torch_compile": True, "torch_compile_backend": "eager"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_arguments_of_the_trainer(example: ModuleType, tmp_path: Path, options: dict[str, Any]) -> None:
    model, analog = twin(example, "gaussian")
    trainer = training(example, analog, tmp_path, **options)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trainer.train()
    assert trainer.model is analog
    for name, parameter in model.named_parameters():
        assert analog.get_parameter(name) is parameter
        assert parameter.isfinite().all()
    assert not torch.equal(model.classifier.weight, before["classifier.weight"])
    schedule = schedule_of(trainer, example)
    steps = 4 if "gradient_accumulation_steps" in options else 8
    assert (trainer.state.global_step, schedule.state_dict()["last_step"]) == (steps, steps)
    assert schedule.get_last_scale() == 2.0
    # Fit for all that follows.
    report = analogsim.evaluate(analog, [batch(example)], chips=1, times=(0,))
    assert 0 <= report.clean <= 1
    again = example.network()
    again.load_state_dict(analog.state_dict(), strict=True)
    assert same(again, model)


def test_a_resumed_training_goes_on_to_the_same_numbers(example: ModuleType, tmp_path: Path) -> None:
    keep = {"load_best_model_at_end": False, "save_total_limit": None}
    model, analog = twin(example)
    training(example, analog, tmp_path / "whole", **keep).train()
    other, again = twin(example)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    trainer = training(example, again, tmp_path / "resumed", **keep)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert same(other, model)
    assert schedule_of(trainer, example).get_last_scale() == 2.0


def test_the_best_checkpoint_comes_back_into_the_twin_and_the_model(example: ModuleType, tmp_path: Path) -> None:
    model, analog = twin(example)
    trainer = training(example, analog, tmp_path, num_train_epochs=3, save_total_limit=None)
    trainer.train()
    best = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    for state in (analog.state_dict(), model.state_dict()):
        assert best.keys() == state.keys()
        assert all(torch.equal(best[name], value) for name, value in state.items())


def test_tied_weights_through_save_pretrained(example: ModuleType, tmp_path: Path) -> None:
    """The head's weight is the table of words: analog in one, digital in the other, and once in the file."""
    from transformers import DistilBertForMaskedLM

    torch.manual_seed(0)
    model = DistilBertForMaskedLM(example.network().config)
    analog = analogsim.convert(model, "pcm")
    head, table = "vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight"
    assert analog.get_parameter(head) is model.get_parameter(table)
    analogsim.program(analog)
    analog.save_pretrained(tmp_path)
    assert len({head, table} & load_file(tmp_path / "model.safetensors").keys()) == 1
    again = DistilBertForMaskedLM.from_pretrained(tmp_path)
    assert same(again, model)
    assert again.get_parameter(head) is again.get_parameter(table)
    twin_again = analogsim.convert(again, "pcm")
    words = torch.tensor(example.reviews(2, 0)[0]["input_ids"]).unsqueeze(0)
    with analogsim.programmed(analog, seed=1), analogsim.programmed(twin_again, seed=1), torch.no_grad():
        assert torch.equal(analog(words).logits, twin_again(words).logits)
