"""A user's own network, data, task and metric: in training, in judging again, on the command line and in Python."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from analogsim.evaluation import Metric
from analogsim.recipes.cli import main
from analogsim.recipes.config.options import Config
from analogsim.recipes.evaluate import ablate, evaluate
from analogsim.recipes.tasks import data_sets
from analogsim.recipes.tasks.task import Regression
from analogsim.recipes.train import AWARE, PLAIN, Result, resume_config, train
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import DivergedError, Training
from analogsim.recipes.training.processes import Processes
from analogsim.recipes.training.setup import Given, check, load_data

Tiny = Callable[..., Config]

NETS = """
from torch import nn
from own_parts_of_test import hidden

def build(shape, classes, width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), hidden(), nn.Linear(width, classes))

def broken():
    raise KeyError("no such size")

def nothing(classes):
    nn.Linear(3, classes)

def wants(shape, depth, heads):
    return nn.Identity()

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))

def unmade(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes, device="meta"))

NUMBER = 3
"""
SCORES = """
def fails(output, target):
    raise KeyError("no such score")

class Misses:
    higher_is_better = False

    def reset(self):
        self.count = 0

    def update(self, output, target):
        self.count += int((output.argmax(1) != target).sum())

    def compute(self):
        return self.count
"""


@pytest.fixture
def project(alone: Path) -> Path:
    """A folder with a network in a file, whose neighbour it imports."""
    folder = alone / "project"
    folder.mkdir()
    (folder / "own_nets_of_test.py").write_text(NETS)
    (folder / "own_parts_of_test.py").write_text("from torch import nn\nhidden = nn.ReLU\n")
    (folder / "own_scores_of_test.py").write_text(SCORES)
    return folder


class Line(nn.Module):
    """A number from three."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 8)
        self.out = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(N, outputs)``."""
        out: Tensor = self.out(self.hidden(x).tanh())
        return out


def numbers(count: int = 80, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(1)


class Absolute(Regression):
    """Numbers whose error counts as it is."""

    name = "absolute"
    metric = Metric("absolute error", lambda answer, target: (answer.squeeze(1) - target).abs(), higher_is_better=False)
    also = (Metric("bias", lambda answer, target: answer.squeeze(1) - target),)

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """The mean absolute error."""
        return nn.functional.l1_loss(*self.alike(answer, target))


def of_numbers(tiny: Tiny, *settings: str, **given: Any) -> Result:
    given = {"model": Line, "data": (numbers(), numbers(40, 1)), "task": Absolute(), **given}
    return train(tiny(*settings), show=False, **given)


def test_values_from_python_go_through_all_of_it(tiny: Tiny, alone: Path) -> None:
    told: list[str] = []
    result = of_numbers(tiny, "optimization.epochs=8", tell=told.append)
    assert told == ["data: 10% of the training samples of your own are held out for validation"]
    assert all(report.metric == "absolute error" for report in result.reports.values())
    assert result.reports[PLAIN].clean < 0.6 < numbers(40, 1)[1].abs().mean()
    assert [list(each) for each in result.also.values()] == [["bias"], ["bias"]]
    text = (result.folder / "report.txt").read_text()
    assert text.index("absolute error") < text.index("bias")
    assert json.loads((result.folder / PLAIN / "also.json").read_text())["bias"]["metric"] == "bias"
    stored = load_checkpoint(result.folder / PLAIN / "checkpoint.pt")
    assert stored["config"]["model"] == f"{__name__}:Line"
    assert stored["config"]["data"]["name"] == "your own"
    assert stored["history"][0].keys() >= {"validation/absolute error/clean", "validation/absolute error/drifted_1d"}

    again = evaluate(result.folder, show=False, model=Line, data=(numbers(), numbers(40, 1)), task=Absolute(), seed=0)
    for kind, report in again.items():
        np.testing.assert_array_equal(report.values, result.reports[kind].values)
    (plain, _) = ablate(result.folder, model=Line(), data=(numbers(), numbers(40, 1)), task=Absolute()).values()
    assert "absolute error" in str(plain)


def test_both_networks_start_from_the_module_that_is_given(tiny: Tiny, alone: Path) -> None:
    mine = Line()
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    data = data_sets.load((numbers(), numbers(40, 1)))
    for aware in (False, True):
        training = Training(tiny(), data, aware=aware, path=alone / str(aware), model=mine)
        assert all(torch.equal(value, before[key]) for key, value in training.model.state_dict().items())
        training.set_random_state()
        with torch.no_grad():
            next(training.model.parameters()).zero_()
    assert torch.equal(mine.hidden.weight, before["hidden.weight"])


def test_a_factory_of_ones_own_starts_as_the_seed_says(tiny: Tiny, alone: Path) -> None:
    def factory(outputs: int) -> nn.Module:
        made = Line(outputs)
        with torch.no_grad():
            made.out.bias.fill_(float(np.random.rand()))
        return made

    data = data_sets.load((numbers(), numbers(40, 1)))
    states = [
        Training(tiny(f"seed={seed}"), data, aware=False, path=alone / "c", model=factory).model.state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["out.bias"], states[2]["out.bias"])


def test_a_run_names_code_and_only_the_user_has_it_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["data.limit=100", "optimization.epochs=1", "evaluation.chips=1", "--no-tracking", "--quiet"]
    network = "project/own_nets_of_test.py:build"
    main(["train", "--model", network, *quick, "--metric", "project/own_scores_of_test.py:Misses", "--no-baseline"])
    (run,) = Path("runs").iterdir()
    assert run.name.endswith("-digits-own_nets_of_test-build-pcm")
    table = capsys.readouterr().out
    assert "Misses" in table
    for words in (["evaluate", str(run)], ["sensitivity", str(run)], ["train", "--resume", str(run)]):
        with pytest.raises(SystemExit):
            main(words)
        error = capsys.readouterr().err
        assert "which is only run when you name it yourself" in error
        assert f"analogsim {' '.join(words)} --model {network} --metric project/own_scores_of_test.py:Misses" in error
    for more in (["--trust"], ["--model", network, "--metric", "accuracy"]):
        main(["evaluate", str(run), "--quiet", *more])
        assert capsys.readouterr().out.startswith("Misses" if more == ["--trust"] else "accuracy [%]")
    with pytest.raises(ValueError, match=r"resume: .*config.toml' names code"):
        resume_config(run)
    assert resume_config(run, given=Given(model="mlp", metric="accuracy")).model == "mlp"
    main(["train", "--resume", str(run), "--trust", "--no-tracking", "--quiet"])
    assert capsys.readouterr().out.partition("report,")[0] == table.partition("report,")[0]


def test_code_that_is_named_again_from_elsewhere_is_taken(tiny: Tiny, project: Path) -> None:
    config = tiny("model=project/own_nets_of_test.py:build", "optimization.epochs=1")
    result = train(config, show=False)
    elsewhere = replace(config, model=f"{project}/own_nets_of_test.py:build")
    assert train(elsewhere, result.folder, show=False).reports.keys() == {PLAIN, AWARE}
    with pytest.raises(ValueError, match=r"was trained with model=.*now it is 'mlp'"):
        train(replace(config, model="mlp"), result.folder, show=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["model=project/own_nets_of_test.py:broken"],
            "raised KeyError in .*own_nets_of_test.py, line 9: 'no such size'",
        ),
        (
            ["model=project/own_nets_of_test.py:nothing"],
            "must give a torch.nn.Module, got None; does it lack a return?",
        ),
        (["model=project/own_nets_of_test.py:wants"], r"asks for depth, heads; known here: shape, classes, outputs"),
        (["model=project/own_nets_of_test.py:NUMBER"], "must be a factory or a module, got int"),
        (["model=project/own_nets_of_test.py:narrow"], r"answers \(2, 2\) to 2 samples, and the data have 10 classes"),
        (["model=project/own_nets_of_test.py:unmade"], "gives Parameters without values .torch's meta device"),
        (["model=project/own_nets_of_test.py:bild"], r"has no 'bild'; did you mean 'build'\?"),
        (["model=project/own_nets_of_test.py"], "names no code; .* such as project/own_nets_of_test.py:build"),
        (["model=project/nowhere.py:build"], "model: no file 'project/nowhere.py'"),
        (["model=nowhere.nets:build"], "model: there is no module 'nowhere'"),
        (["data.name=nowhere:make"], "data: there is no module 'nowhere'"),
        (["data.name=project/own_nets_of_test.py:build"], "asks for shape, classes; known here: seed"),
        (["task=regresion"], "did you mean 'regression'"),
        (["metric=acuracy"], r"metric: unknown name 'acuracy', known are .*did you mean 'accuracy'\?"),
        (["metric=project/own_nets_of_test.py:NUMBER"], "must be a function of .* got int"),
        (["weights=nowhere.pt"], "weights: no file 'nowhere.pt'"),
        (["data.name=folder:nowhere"], "nowhere"),
        (["data.name=npz:nowhere.npz", "data.folder=here"], "says itself where the data lie; leave out data.folder"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    project: Path, fail: Callable[..., str], settings: list[str], message: str
) -> None:
    quick = ["data.limit=50", "optimization.epochs=1", "--no-tracking", "--quiet"]
    assert re.search(message, fail("train", *settings, *quick))
    assert not list(Path("runs").glob("*/*"))


def test_whatever_users_code_raises_is_told_in_one_line(project: Path, fail: Callable[..., str]) -> None:
    metric = "project/own_scores_of_test.py:fails"
    told = fail("train", "model=mlp", f"metric={metric}", "data.limit=20", "--epochs", "1", "--quiet", "--no-tracking")
    assert re.search(r"^KeyError in .*own_scores_of_test\.py, line \d+: 'no such score'; evaluate: the metric", told)
    assert "was given 0: a tensor (20, 10) of torch.float32" in told
    with pytest.raises(KeyError):
        main(["--debug", "train", "model=mlp", f"metric={metric}", "data.limit=20", "--quiet", "--no-tracking"])


def test_the_traceback_of_users_code_is_within_reach(project: Path) -> None:
    with pytest.raises(ValueError, match="raised KeyError") as told:
        main(["--debug", "train", "model=project/own_nets_of_test.py:broken", "--no-tracking", "--quiet"])
    assert isinstance(told.value.__cause__, KeyError)


def test_what_options_name_is_told_before_data_are_read(
    tiny: Tiny, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_sets, "load", lambda *_, **__: pytest.fail("data were read"))
    for setting in ("model=nets.py:build", "task=tasks.py:Mine", "metric=scores.py:f1", "weights=w.pt", "model=a/b.py"):
        with pytest.raises((ValueError, FileNotFoundError)):
            train(tiny(setting), show=False)
    with pytest.raises(ValueError, match="data: unknown name 'nowhere'"):
        train(tiny("data.name=nowhere"), show=False)


def test_weights_are_put_on_chips_as_they_are(tiny: Tiny, alone: Path) -> None:
    first = train(tiny("baseline=false"), show=False)
    trained = load_checkpoint(first.folder / AWARE / "checkpoint.pt")["model"]
    torch.save({"state_dict": {f"module.{key}": value for key, value in trained.items()}}, "w.pt")
    told: list[str] = []
    config = tiny("weights=w.pt", "optimization.epochs=0")
    result = train(config, show=False, tell=told.append)
    assert told == ["weights 'w.pt': 'module.' is taken from their names"]
    assert list(result.reports) == [PLAIN]
    np.testing.assert_array_equal(result.reports[PLAIN].values, first.reports[AWARE].values)
    np.testing.assert_array_equal(evaluate(result.folder, show=False)[PLAIN].values, first.reports[AWARE].values)
    Path("w.pt").unlink()  # a run that is gone on with has its own
    with pytest.raises(FileNotFoundError, match="weights: no file"):
        check(config)
    with pytest.raises(ValueError, match="model='mlp' starts at random; give weights=FILE"):
        check(tiny("optimization.epochs=0"))


def test_weights_are_where_training_starts(tiny: Tiny, alone: Path) -> None:
    torch.manual_seed(7)
    state = Line().state_dict()
    torch.save(state, "w.pt")
    data = data_sets.load((numbers(), numbers(40, 1)))
    for aware in (False, True):
        training = Training(tiny("weights=w.pt"), data, aware=aware, path=alone / "none", model=Line)
        assert all(torch.equal(value, state[key]) for key, value in training.model.state_dict().items())
    with pytest.raises(ValueError, match=r"weights 'w.pt' are of another network; .*of another shape: out.weight"):
        Training(tiny("weights=w.pt"), data, aware=False, path=alone / "none", model=lambda: Line(2))


class Sentences(Dataset[Any]):
    """Rows of tokens of several lengths; a network of them is called by keywords."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return {"input_ids": torch.full((2 + index % 3,), 1 + index % 2), "labels": index % 2}


def padded(samples: list[Any]) -> Any:
    tokens = nn.utils.rnn.pad_sequence([sample["input_ids"] for sample in samples], batch_first=True)
    return {"input_ids": tokens, "labels": torch.tensor([sample["labels"] for sample in samples])}


class Reader(nn.Module):
    """A bag of words."""

    def __init__(self, vocabulary: int, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, 4)
        self.out = nn.Linear(4, classes)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Give logits by name."""
        return {"logits": self.out(self.words(input_ids).mean(1))}


def test_samples_may_be_mappings_of_any_length(tiny: Tiny, alone: Path) -> None:
    parts = {"train": Sentences(60), "validation": Sentences(20), "test": Sentences(30), "collate": padded}
    config = tiny("optimization.lr=0.1", "optimization.epochs=4", "crossbar=standard(input_range='calibrated')")
    result = train(config, show=False, model=Reader, data=parts)
    assert result.reports[PLAIN].metric == "accuracy"
    assert result.reports[PLAIN].clean == 1


def test_processes_share_any_data(tiny: Tiny, alone: Path) -> None:
    whole = data_sets.load(
        {"train": Sentences(10), "validation": Sentences(4), "test": Sentences(4), "collate": padded}
    )
    shares = [Processes(rank, 3).shares(whole.train) for rank in range(3)]
    assert [len(share) for share in shares] == [10, 10, 10]
    parts = [list(whole.batches(share, 4)) for share in shares]
    for number, batch in enumerate(whole.batches(whole.train, 4)):
        together = [label for part in parts for label in part[number]["labels"].tolist()]
        assert together[: len(batch["labels"])] == batch["labels"].tolist()
    assert shares[0][3]["labels"] == 1


def test_compensation_that_needs_batch_norm_asks_the_network_itself(tiny: Tiny, alone: Path) -> None:
    config = tiny("evaluation.compensation=batch-norm")
    with pytest.raises(ValueError, match=r"is for networks with batch norm, and model='.*:Line' has none"):
        train(config, show=False, model=Line, data=(numbers(), numbers(40, 1)), task=Absolute())


def test_a_loss_that_is_none(tiny: Tiny, alone: Path) -> None:
    class Wrong(Absolute):
        def loss(self, answer: Tensor, target: Tensor) -> Tensor:
            return (answer.squeeze(1) - target).abs()

    with pytest.raises(TypeError, match=r"task absolute: loss must return a scalar tensor, the mean, got .*\(16,\)"):
        of_numbers(tiny, task=Wrong())
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 2\) for targets of shape \(2,\)"):
        of_numbers(tiny, model=lambda: Line(2))


def test_divergence_is_seen_from_the_guess_of_the_task(tiny: Tiny, alone: Path) -> None:
    data = (numbers(), numbers(40, 1))
    with pytest.raises(DivergedError, match="training diverged"):
        train(
            tiny("optimization.lr=1e9", "optimization.optimizer=sgd"),
            show=False,
            model=Line,
            data=data,
            task=Absolute(),
        )
    far = tuple((x, 1e4 * y) for x, y in data)  # the loss is large, and no larger than that of guessing
    assert of_numbers(tiny, data=far, task=Absolute()).reports


def test_a_configuration_file_and_settings_name_them_too(project: Path) -> None:
    Path("mine.toml").write_text(
        'model = "project/own_nets_of_test.py:build"\ntask = "classification"\nmetric = "cross_entropy"\n'
        "[data]\nlimit = 60\n[optimization]\nepochs = 1\n[evaluation]\nchips = 1\n[tracking]\nenabled = false\n"
    )
    main(["train", "mine.toml", "--quiet"])
    (run,) = Path("runs").iterdir()
    assert "cross_entropy" in (run / "report.txt").read_text()
    assert json.loads((run / PLAIN / "also.json").read_text()).keys() == {"accuracy"}


def test_data_by_settings_have_task_and_metric_of_the_settings(tiny: Tiny) -> None:
    data = load_data(tiny("metric=cross_entropy"))
    assert (data.task.name, data.task.metric.name) == ("classification", "cross_entropy")
    assert load_data(tiny(), Given(metric=Metric("mine", lambda a, b: a))).task.metric.name == "mine"
    given = Given(model=Line(), data=data, task="regression", metric=data.task.metric)
    described = given.described(tiny())
    assert (described.model, described.data.name) == (f"{__name__}:Line", "digits")
    assert (described.task, described.metric) == ("regression", "cross_entropy")


def test_a_summary_of_any_network(project: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]) -> None:
    main(["summary", "project/own_nets_of_test.py:build", "--data", "digits"])
    assert "3" in capsys.readouterr().out
    assert "asks for shape, classes; known here: nothing" in fail("summary", "project/own_nets_of_test.py:build")
    assert "data: unknown name 'digit'" in fail("summary", "mlp", "--data", "digit")
