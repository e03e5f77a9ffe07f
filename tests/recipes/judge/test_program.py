import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import analogsim
from analogsim.evaluation.metrics import METRICS, Metric
from analogsim.recipes import cli
from analogsim.recipes.judge import judge, plan, program, rounds
from analogsim.recipes.judge.bench import Bench
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.judgement import NO_REMEDY, OPEN, Judgement
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.sizes import Sizes
from analogsim.recipes.judge.variant import Subject, Variant


@pytest.fixture
def few_chips(monkeypatch):
    """As a budget of a second would have it."""

    def sizes(clock, *, times, remedies, layers, available):
        return Sizes(available, 3, 3, 2, 2, layers)

    monkeypatch.setattr(rounds, "plan", sizes)
    monkeypatch.setattr(plan, "_MOST_CHIPS", 3)


def data(count: int = 200, seed: int = 0):
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return [(x, (x @ torch.tensor([1.0, -1.0, 0.5, 0.2]) > 0).long())]


class Network(nn.Module):
    """Says by its weights what the data are made by."""

    def __init__(self, wait: float = 0.0) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2, bias=False)
        self.wait = wait
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-1.0, 1.0, -0.5, -0.2], [1.0, -1.0, 0.5, 0.2]]))

    def forward(self, x, shift=None):
        time.sleep(self.wait * len(x))
        return self.fc(x if shift is None else x + shift)


ONE = ("column",)


def test_a_twin_is_judged_on_its_own_hardware(few_chips):
    twin = analogsim.convert(Network(), "gaussian(std=0.3)")
    found = judge(twin, data(), validation=data(seed=1), device="gaussian(std=0.3)", only=ONE)
    assert found.report.device == twin.fc.analog.device.name
    assert twin.fc.analog.chip is None


def test_inputs_by_name(few_chips):
    (x, y), (vx, vy) = data()[0], data(seed=1)[0]
    found = judge(
        Network(),
        [({"x": x, "shift": torch.zeros_like(x)}, y)],
        validation=[({"x": vx, "shift": torch.zeros_like(vx)}, vy)],
        only=ONE,
    )
    assert found.clean == 1.0


def test_time_is_kept_and_fewer_samples_are_said():
    analogsim.convert(Network(), "pcm")  # modules that are imported at first use are not the network's time
    start = time.monotonic()
    found = judge(Network(wait=0.002), data(2000), validation=data(2000, 1), only=ONE, minutes=0.1)
    assert time.monotonic() - start < 8
    assert any("more would take longer than 0.1 minutes" in note for note in found.notes)
    assert found.report.samples < 2000


def test_without_validation_half_of_the_test_data_chooses(few_chips):
    found = judge(Network(), data(), only=ONE)
    assert any("one half of the test data chooses" in note for note in found.notes)
    assert found.report.samples == 100


def test_few_validation_samples_are_joined_by_labelled_ones(few_chips):
    found = judge(Network(), data(), validation=data(10, 1), calibration=data(500, 2), only=ONE)
    assert any("There are 10 validation samples; 246 of the calibration data" in note for note in found.notes)


def test_remedies_that_are_given(few_chips):
    found = judge(Network(), data(), validation=data(seed=1), apply="copies-2+column")
    assert "Mapping(copies=2)" in found.python
    assert "column" in found.python


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"minutes": 0}, "judge: minutes must be a number above 0"),
        ({"tolerance": "much"}, "judge: tolerance must be"),
        ({"only": ("colum",)}, "there is no remedy 'colum'"),
        ({"times": "1d"}, "times must be a sequence"),
        ({"at": "1h", "times": ("1s",)}, "at='1h' is none of the times 1s"),
        ({"metric": lambda output, target: output.sum(1)}, "judge: it is not known whether a higher"),
        ({"validation": []}, "judge: a loader is empty"),
        ({"apply": "remap"}, "judge: remedy 'remap': the device has no stuck cells"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(how, said):
    with pytest.raises(ValueError, match=said):
        judge(Network(), data(), **({"validation": data(seed=1)} | how))


def test_every_step_is_shown_so_that_an_interruption_loses_nothing(few_chips):
    shown: list[Judgement] = []
    judge(Network(), data(), validation=data(seed=1), only=ONE, compensation=None, show=shown.append)
    assert shown
    assert shown[0].report.clean == 1.0


def test_the_command_judges_a_run(few_chips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["data.limit=200", "optimization.epochs=2", "evaluation.chips=1", "--no-tracking", "--quiet"]
    cli.main(["train", "model=mlp", "out=runs", "baseline=false", *quick])
    (run,) = (tmp_path / "runs").iterdir()
    capsys.readouterr()
    few = ["--only", "column,no-gain", "--quiet", "--times", "1s,1y"]
    cli.main(["judge", str(run), "--html", "page.html", "--json", "found.json", *few])
    out = capsys.readouterr().out
    assert "hardware-aware network" in out
    assert "Verdict: " in out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    stored = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert str(Judgement.from_dict(stored["hardware-aware"])) in out


def test_a_folder_that_is_not_there_is_told_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["judge", "nothing", "--html", str(tmp_path / "no" / "page.html")])
    assert "there is no folder" in capsys.readouterr().err


_PROJECT = """
import torch
from torch import nn

def net(shape, classes):
    return nn.Linear(shape[0], classes, bias=False)

def load():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.tensor([1.0, -1.0, 0.5, 0.2]) > 0).long()
    return (x[:100], y[:100]), (x[100:200], y[100:200]), (x[200:], y[200:])
"""


def test_the_command_judges_ones_own_network(few_chips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(_PROJECT, encoding="utf-8")
    torch.save({"module.weight": Network().fc.weight.detach()}, tmp_path / "net.pt")
    named = ["--model", "mine.py:net", "--weights", "net.pt", "--data", "mine.py:load"]
    cli.main(["judge", *named, "--compensation", "none", "--only", "global", "--times", "1y"])
    printed = capsys.readouterr()
    assert "'module.' is taken from their names" in printed.err
    assert "clean 100.00" in printed.out
    assert "mine-net network" in printed.out


@pytest.mark.parametrize("words", [[], ["--model", "mlp"], ["--data", "digits"]])
def test_a_run_or_a_network_and_data(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["judge", *words])
    assert "give a run's folder, or --model and --data" in capsys.readouterr().err


def test_a_run_has_weights_of_its_own(capsys):
    with pytest.raises(SystemExit):
        cli.main(["judge", "run", "--weights", "net.pt"])
    assert "leave out --weights" in capsys.readouterr().err


def test_a_journal_goes_on_where_the_first_call_was_ended(few_chips, tmp_path, monkeypatch):
    how = {"validation": data(seed=1), "only": ONE, "compensation": None, "times": ("1y",)}
    alone = judge(Network(), data(), **how)
    shown: list[Judgement] = []

    def interrupt(text: str) -> None:
        if text.startswith("remedy"):
            raise KeyboardInterrupt

    journal = tmp_path / "chips.jsonl"
    with pytest.raises(KeyboardInterrupt):
        judge(Network(), data(), **how, journal=journal, tell=interrupt, show=shown.append)
    begun = journal.read_bytes()
    # Another plan, as a busier machine would make it; the samples and chips of the first one stay.
    monkeypatch.setattr(rounds, "plan", lambda clock, **_: Sizes(50, 2, 2, 2, 2, 1))
    found = judge(Network(), data(), **how, journal=journal)
    assert journal.read_bytes().startswith(begun)
    assert found.report.to_dict() == shown[0].report.to_dict() == alone.report.to_dict()
    assert found.remedies == alone.remedies
    assert found.advice == alone.advice


def test_a_whole_journal_gives_the_same_answer_where_no_time_is_left_for_anything(few_chips, tmp_path, monkeypatch):
    how = {"validation": data(seed=1), "only": ("global", "column"), "compensation": None, "times": ("1y",)}
    first = judge(Network(), data(), **how, journal=tmp_path / "chips.jsonl")
    estimate = Clock.estimate
    monkeypatch.setattr(Clock, "estimate", lambda *args, **options: 1e6 * estimate(*args, **options))
    again = judge(Network(), data(), **how, journal=tmp_path / "chips.jsonl")
    assert first.verdict == NO_REMEDY
    assert again.replace(seconds=0.0).to_dict() == first.replace(seconds=0.0).to_dict()
    without = judge(Network(), data(), **how)
    assert without.verdict == OPEN
    assert "There was no time" in without.advice


def test_workers_give_the_same_numbers(few_chips):
    with ThreadPoolExecutor(2) as pool:
        one, other = (
            judge(Network(), data(), validation=data(seed=1), only=ONE, compensation=None, executor=executor)
            for executor in (None, pool)
        )
    assert one.replace(seconds=0.0).to_dict() == other.replace(seconds=0.0).to_dict()


def test_processes_that_make_the_same_call_decide_by_one_clock(few_chips):
    class Alone:
        """A group of one process, which counts how often it is asked for the time."""

        rank, world = 0, 1

        def __init__(self) -> None:
            self.asked = 0

        def gather(self, value):
            self.asked += isinstance(value, float)
            return [value]

        def first(self, work):
            return work()

    ranks = Alone()
    found = judge(Network(), data(), validation=data(seed=1), only=ONE, executor=ranks)
    assert ranks.asked > 5
    assert found.report.to_dict() == judge(Network(), data(), validation=data(seed=1), only=ONE).report.to_dict()


@pytest.mark.slow
def test_the_command_with_workers_and_a_journal(few_chips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(_PROJECT, encoding="utf-8")
    torch.save(Network().fc.state_dict(), tmp_path / "net.pt")
    words = ["judge", "--model", "mine.py:net", "--weights", "net.pt", "--data", "mine.py:load", "--times", "1y"]
    words += ["--compensation", "none", "--only", "global", "--quiet"]
    cli.main(words)
    alone = capsys.readouterr().out
    cli.main([*words, "--workers", "2", "--journal", "chips.jsonl"])
    assert capsys.readouterr().out == alone
    cli.main([*words, "--journal", "chips.jsonl"])
    assert capsys.readouterr().out == alone


def test_one_box_for_each_picture(few_chips):
    """Targets in a mapping, as a detector of one thing has them, and a metric that looks into it."""
    (x, y), (vx, vy) = data()[0], data(seed=1)[0]

    def right(output, target):
        return (output.argmax(1) == target["label"]).float()

    found = judge(
        Network(),
        [(x, {"label": y, "box": torch.zeros(len(y), 4)})],
        validation=[(vx, {"label": vy, "box": torch.zeros(len(vy), 4)})],
        metric=Metric("right", right, unit="%", higher_is_better=True),
        only=ONE,
    )
    assert found.clean == 1.0
    assert 0.3 < found.guess < 0.7


def test_a_network_that_knows_nothing_is_not_searched_for_remedies(few_chips):
    torch.manual_seed(0)
    guesses = [(x, torch.randint(2, (len(x),))) for x, _ in data(400)]
    found = judge(Network(), guesses, validation=guesses, only=ONE, device="gaussian(std=3.0)", times=("0s",))
    assert found.verdict == "nothing to do"
    assert "the network has nothing to lose" in found.advice
    assert not found.remedies


def test_what_a_chip_takes_by_itself_is_not_taken_for_what_samples_take():
    """Else a network that is slow to write, or a machine that is busy at first, would be judged on a few samples."""
    now = [0.0]
    clock = Clock(60.0, now=lambda: now[0])

    class Slow(Bench):
        def ask(self, variant, part, seeds):
            now[0] += 0.5 + 0.0001 * len(part.samples) + (2.0 if now[0] == 0 else 0.0)

    bench = Slow(Subject(analogsim.convert(Network(), "pcm"), [], "pcm", "ideal"), METRICS["accuracy"], clock)
    program.learn_costs(bench, Variant(), Samples(data(1000)), 1.0, 0)
    assert clock.fixed == pytest.approx(0.5, rel=0.1)
    assert clock.samples_for(1.0) > 1000


def test_a_network_of_a_second_for_each_batch_is_not_asked_for_more():
    now = [0.0]
    clock = Clock(60.0, now=lambda: now[0])

    class Slow(Bench):
        def ask(self, variant, part, seeds):
            now[0] += 1.0 * len(part.samples)

    bench = Slow(Subject(analogsim.convert(Network(), "pcm"), [], "pcm", "ideal"), METRICS["accuracy"], clock)
    program.learn_costs(bench, Variant(), Samples(data(1000)), 1.0, 0)
    assert clock.spent == 8.0
    assert clock.per_sample == 1.0
