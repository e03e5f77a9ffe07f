"""A Hugging Face `Trainer` trains a transformer for phase-change memory.

    pip install ".[frameworks]"
    python examples/huggingface_trainer.py

The trainer takes the analog twin as it takes any model. The task is made here, so that nothing is downloaded: reviews
such as "the plot was not dull the cast was great", which are good if most of their clauses praise.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import analogsim
from analogsim.integrations.transformers import HardwareCallback

GOOD, BAD = ("great", "funny", "clever", "moving"), ("dull", "weak", "awful", "flat")
WORDS = ("[pad]", "[start]", "the", "was", "not", "plot", "cast", "music", "ending", "film", *GOOD, *BAD)
LENGTH = 16  # a start, and three clauses of at most five words

Review = dict[str, list[int] | int]


def reviews(count: int, seed: int) -> list[Review]:
    """Reviews of one or three clauses: word numbers padded to one length, and 1 if most clauses praise."""
    choose = random.Random(seed)
    made: list[Review] = []
    for _ in range(count):
        words, praise = ["[start]"], 0
        clauses = choose.choice((1, 3))
        for _ in range(clauses):
            good, negated = choose.random() < 0.5, choose.random() < 0.5
            noun = choose.choice(("plot", "cast", "music", "ending", "film"))
            words += ["the", noun, "was", *(["not"] if negated else []), choose.choice(GOOD if good else BAD)]
            praise += good != negated
        numbers = [WORDS.index(word) for word in words]
        padding = [0] * (LENGTH - len(numbers))
        made.append(
            {
                "input_ids": numbers + padding,
                "attention_mask": [1] * len(numbers) + padding,
                "labels": int(2 * praise > clauses),
            }
        )
    return made


def network() -> DistilBertForSequenceClassification:
    """A transformer of two layers, from its configuration."""
    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(WORDS),
            max_position_embeddings=LENGTH,
            dim=32,
            hidden_dim=64,
            n_layers=2,
            n_heads=4,
            dropout=0.0,
            attention_dropout=0.0,
            seq_classif_dropout=0.0,
        )
    )


def accuracy(answers: EvalPrediction) -> dict[str, float]:
    """What the trainer reports, here of the chip that is programmed."""
    return {"accuracy": float((np.asarray(answers.predictions).argmax(-1) == answers.label_ids).mean())}


def trainer(analog: nn.Module, folder: Path, train: list[Review], test: list[Review], **options: Any) -> Trainer:
    """The trainer of a twin; ``options`` are its `TrainingArguments`."""
    settings = {
        "num_train_epochs": 12,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 500,
        "learning_rate": 3e-3,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "logging_strategy": "epoch",
        "report_to": "none",
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "seed": 0,
    }
    return Trainer(
        model=analog,
        args=TrainingArguments(str(folder), **{**settings, **options}),
        train_dataset=train,
        eval_dataset=test,
        compute_metrics=accuracy,
        callbacks=[HardwareCallback(time="1d")],
    )


def main(folder: Path) -> analogsim.Report:
    """Convert, train, save, load, evaluate."""
    torch.manual_seed(0)
    train, test = reviews(2000, seed=0), reviews(500, seed=1)
    model = network()
    analog = analogsim.convert(model, "pcm")
    trainer(analog, folder, train, test).train()

    # The twin holds the model's own Parameters, under the same names, so that either can be saved and loaded.
    analog.save_pretrained(folder / "trained")
    again = DistilBertForSequenceClassification.from_pretrained(folder / "trained")
    again.load_state_dict(analog.state_dict(), strict=True)
    twin = analogsim.convert(again, "pcm")
    return analogsim.evaluate(twin, DataLoader(test, 500, collate_fn=default_data_collator), chips=10)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(f"{main(Path(scratch))}\n")
