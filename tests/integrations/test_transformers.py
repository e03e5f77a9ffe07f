"""The Trainer of transformers and `from_pretrained` with twins; tests/examples has more of the Trainer's arguments."""

from __future__ import annotations

import json
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


def learning(transformers: Any) -> tuple[Any, Any]:
    """A twin whose converters learn their ranges, and an optimizer that has them."""
    analog = analogsim.convert(small_bert(transformers), "pcm", crossbar="standard(input_range='learned')")
    analogsim.calibrate(analog, {"input_ids": torch.stack([row["input_ids"] for row in sentences()])})
    return analog, torch.optim.Adam([*analog.parameters(), *analogsim.range_parameters(analog)], lr=1e-2)


def test_learned_ranges_train_and_go_with_the_checkpoints(transformers: Any, tmp_path: Path) -> None:
    from analogsim.integrations.transformers import HardwareCallback

    analog, _ = learning(transformers)
    with pytest.warns(UserWarning, match=r"input ranges .* in no optimizer .* give the Trainer optimizers=\(AdamW"):
        trainer(transformers, analog, HardwareCallback(), tmp_path / "without", num_train_epochs=1).train()

    def run(callback: Any, **options: Any) -> Any:
        analog, optimizer = learning(transformers)
        training = trainer(transformers, analog, callback, tmp_path, save_strategy="epoch", **options)
        training.optimizer = optimizer
        return training

    def ranges(training: Any) -> list[torch.Tensor]:
        return [held.detach().clone() for held in analogsim.range_parameters(training.model)]

    whole = run(HardwareCallback(noise={"steps": 8}, time="1y"), eval_strategy="epoch")
    before = ranges(whole)
    whole.train()
    assert not any(map(torch.equal, ranges(whole), before))
    first = min(tmp_path.glob("checkpoint-*"))
    for restored in (False, True):
        again = run(
            HardwareCallback(noise={"steps": 8}, time="1y"),
            eval_strategy="epoch",
            restore_callback_states_from_checkpoint=restored,
        )
        again.train(resume_from_checkpoint=str(first))
        for found, expected in zip(ranges(again), ranges(whole), strict=True):
            torch.testing.assert_close(found, expected)
    # The best weights are those of the first epoch, and so are the ranges.
    best = run(
        HardwareCallback(noise={"steps": 8}),
        eval_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="epoch",
        greater_is_better=False,
    )
    best.compute_metrics = lambda _: {"epoch": len(best.state.log_history)}
    best.train()
    assert best.state.best_model_checkpoint == str(first)
    kept = json.loads((first / "trainer_state.json").read_text())["stateful_callbacks"]["HardwareCallback"]
    best_ranges = analogsim.get_ranges(best.model)
    assert {name: held["input_range"].tolist() for name, held in best_ranges.items()} == {
        name: held["input_range"] for name, held in kept["attributes"]["ranges"].items()
    }


def test_without_transformers_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None; import analogsim.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingPackageError: analogsim.integrations.transformers needs transformers" in done.stderr
    assert 'pip install "analogsim-torch[frameworks]"' in done.stderr


# from_pretrained


def answers(analog: Any, words: torch.Tensor, seed: int = 3) -> torch.Tensor:
    with analogsim.programmed(analog, seed=seed, t="1mo"), torch.no_grad():
        logits: torch.Tensor = analog(input_ids=words).logits
        return logits


WORDS = torch.arange(24).view(3, 8)


def test_the_twin_comes_back_of_the_folder_alone(transformers: Any, tmp_path: Path) -> None:
    """Auto class, save, load in another process that imports nothing of ours but the door: the same chip."""
    from analogsim.integrations.transformers import AnalogConfig

    auto = transformers.AutoModelForSequenceClassification
    small_bert(transformers).save_pretrained(tmp_path / "digital")
    config = AnalogConfig("pcm", crossbar="standard(input_range='learned', rows=8)")
    analog = auto.from_pretrained(tmp_path / "digital", quantization_config=config)
    analogsim.calibrate(analog, [{"input_ids": WORDS}])
    with torch.no_grad():  # as training would
        analogsim.range_parameters(analog)[0].mul_(0.75)
    analog.save_pretrained(tmp_path / "twin")
    code = (
        "import torch, transformers, analogsim, analogsim.integrations.transformers\n"
        f"analog = transformers.AutoModelForSequenceClassification.from_pretrained({str(tmp_path / 'twin')!r})\n"
        "with analogsim.programmed(analog, seed=3, t='1mo'), torch.no_grad():\n"
        "    torch.manual_seed(0)\n"
        f"    torch.save(analog(torch.arange(24).view(3, 8)).logits, {str(tmp_path / 'answers.pt')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "answers.pt"), answers(analog, WORDS))
    assert not torch.equal(answers(analog, WORDS, seed=4), answers(analog, WORDS))


def test_hardware_by_layer_comes_back(transformers: Any, tmp_path: Path) -> None:
    """Own device models, patterns of which the first counts, wires, tables of words on crossbars."""
    from analogsim.integrations.transformers import remember_hardware

    own = analogsim.as_device_model("pcm").replace(g_max=20.0)
    wires = analogsim.Crossbar(rows=16, wire_resistance=analogsim.Wires(row=1.0, sink=2.0))
    model = small_bert(transformers)
    analog = analogsim.convert(
        model, {"*.query": own, "*.key": None, "*": "pcm"}, crossbar={"*.query": wires}, embeddings=True
    )
    remember_hardware(analog)
    analog.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(answers(again, WORDS), answers(analog, WORDS))
    layers = again.bert.encoder.layer[0].attention.self
    assert (layers.query.analog.device, layers.query.analog.crossbar) == (own, wires)
    assert type(layers.key) is nn.Linear
    assert isinstance(again.bert.embeddings.word_embeddings, analogsim.AnalogModule)
    # The model that the twin was made of is saved as ever.
    model.save_pretrained(tmp_path / "digital")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "digital")
    assert not any(isinstance(module, analogsim.AnalogModule) for module in plain.modules())


def test_digital_again(transformers: Any, tmp_path: Path) -> None:
    from analogsim.integrations.transformers import remember_hardware

    model = small_bert(transformers).eval()
    analog = analogsim.convert(model, "pcm")
    remember_hardware(analog)
    analog.dequantize().save_pretrained(tmp_path)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(plain(WORDS).logits, model(WORDS).logits)


def test_the_trainer_trains_and_saves_it(transformers: Any, tmp_path: Path) -> None:
    from analogsim.integrations.transformers import AnalogConfig, HardwareCallback

    small_bert(transformers).save_pretrained(tmp_path / "digital")
    auto = transformers.AutoModelForSequenceClassification
    analog = auto.from_pretrained(tmp_path / "digital", quantization_config=AnalogConfig("pcm"))
    options = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    training = trainer(transformers, analog, HardwareCallback(), tmp_path / "runs", **options)
    training.train()
    training.save_model(str(tmp_path / "trained"))
    again = auto.from_pretrained(tmp_path / "trained")
    assert torch.equal(answers(again, WORDS), answers(analog, WORDS))


def test_the_saved_config_is_a_twin_of_the_convert_call(transformers: Any, tmp_path: Path) -> None:
    """``remember_hardware`` may be told the call in its own words, which are kept."""
    from analogsim.integrations.transformers import AnalogConfig, remember_hardware

    config = AnalogConfig("gaussian(std=0.1)", train_times=("1s", "1d"), embeddings=True)
    analog = config.convert(small_bert(transformers))
    remember_hardware(analog, config)
    analog.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    held = again.config.quantization_config
    assert (held.device, held.crossbar, held.embeddings, held.train_times) == (
        *("gaussian(std=0.1)", "ideal", True),
        ["1s", "1d"],
    )
    assert again.classifier.analog.train_times == (1.0, 86400.0)


def test_what_cannot_be_kept_is_refused(transformers: Any) -> None:
    from analogsim.integrations.transformers import AnalogConfig, remember_hardware

    with pytest.raises(TypeError, match=r"a pattern must be text, got <class .*Linear'>; write it as a pattern"):
        AnalogConfig({nn.Linear: "pcm"})
    with pytest.raises(ValueError, match="did you mean 'pcm'"):
        AnalogConfig("pcn")
    with pytest.raises(TypeError, match="AnalogConfig: there is no 'bits'; it has device, crossbar"):
        AnalogConfig("pcm", bits=4)
    with pytest.raises(
        TypeError, match="give the twin of a PreTrainedModel, whose config is saved; got one of type AnalogLin"
    ):
        remember_hardware(analogsim.convert(nn.Linear(3, 3), "pcm"))
    with pytest.raises(ValueError, match="no analog layer"):
        remember_hardware(small_bert(transformers))


def test_lm_eval_takes_a_programmed_twin(transformers: Any) -> None:
    """``HFLM`` of lm-eval around a toy model: the likelihoods are those of the chip."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="needs lm-eval (pip install lm-eval)")
    from lm_eval.api.instance import Instance
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[unk]": 0, "[end]": 1, "a": 2, "b": 3, "c": 4, "d": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[unk]", eos_token="[end]")
    fast.pad_token = fast.eos_token
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=6, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    analog = analogsim.convert(transformers.GPT2LMHeadModel(config).eval(), "pcm")
    with analogsim.programmed(analog, seed=2, t="1y"), torch.no_grad():
        model = huggingface.HFLM(pretrained=analog, tokenizer=fast, backend="causal", batch_size=1, device="cpu")
        request = Instance("loglikelihood", {}, ("a b", " c d"), 0)
        ((found, _),) = model.loglikelihood([request], disable_tqdm=True)
        ids = torch.tensor([[2, 3, 4, 5]])
        logged = analog(input_ids=ids).logits.log_softmax(-1)
        by_hand = float(logged[0, 1, 4] + logged[0, 2, 5])
    assert found == pytest.approx(by_hand, rel=1e-4)
    with pytest.raises(analogsim.NotProgrammedError):
        model.loglikelihood([request], disable_tqdm=True)
