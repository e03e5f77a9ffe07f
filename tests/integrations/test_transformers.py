"""The Trainer of transformers and `from_pretrained` with twins; tests/examples has more of the Trainer's arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import analogsim

pytestmark = [
    pytest.mark.slow,  # transformers alone takes seconds to import
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:mtime may not be reliable on this filesystem"
    ),
]


@pytest.fixture(scope="module")
def transformers() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    pytest.importorskip("accelerate", reason='needs pip install "analogsim-torch[frameworks]"')
    return pytest.importorskip("transformers", reason='needs pip install "analogsim-torch[frameworks]"')


def small_bert(transformers: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=12, num_labels=2, **sizes)
    return transformers.BertForSequenceClassification(config)


def sentences(count: int = 32) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    words = torch.randint(30, (count, 8))
    return [{"input_ids": row, "labels": int(row[0] > 14)} for row in words]


def trainer(transformers: Any, analog: nn.Module, callback: Any, folder: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "report_to": "none"}
    settings |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "dataloader_pin_memory": False}
    return transformers.Trainer(
        model=analog,
        args=transformers.TrainingArguments(str(folder), **{**settings, **options}),
        train_dataset=sentences(),
        eval_dataset=sentences(8),
        callbacks=[callback],
    )


@pytest.mark.parametrize(
    "options",
    [
        {"eval_strategy": "epoch"},
        {"eval_strategy": "steps", "eval_steps": 3},
        {"eval_strategy": "epoch", "eval_on_start": True},
    ],
    ids=str,
)
def test_evaluations_in_training_find_the_chip(transformers: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    from analogsim.integrations.transformers import HardwareCallback

    analog = analogsim.convert(small_bert(transformers), "pcm")
    callback = HardwareCallback(clip={"end": 2.0}, time="1y", seed=7)
    training = trainer(transformers, analog, callback, tmp_path, **options)
    training.train()
    losses = [entry["eval_loss"] for entry in training.state.log_history if "eval_loss" in entry]
    # Of eight steps: after both epochs; after steps 3 and 6 and at the end; before the first and after both epochs.
    assert len(losses) == (2 if options == {"eval_strategy": "epoch"} else 3)
    assert callback.course.scale == 2.0
    assert callback.course.schedules["clip"].state_dict()["last_step"] == 8
    with pytest.raises(analogsim.NotProgrammedError):
        training.evaluate()
    if options["eval_strategy"] == "epoch":
        with analogsim.programmed(analog, seed=7, t="1y"):
            assert training.evaluate()["eval_loss"] == pytest.approx(losses[-1], rel=1e-5)


def test_without_transformers_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; import analogsim.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingPackageError: analogsim.integrations.transformers needs transformers" in done.stderr
    assert 'pip install "analogsim-torch[frameworks]"' in done.stderr
