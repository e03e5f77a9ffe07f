import numpy as np
import pytest
import torch

from analogsim.evaluation.metrics import METRICS, Metric
from analogsim.evaluation.scoring import ask_alone, score_networks
from analogsim.recipes.judge.paired import GROUPS, Difference, compare, recording
from analogsim.utils.batches import Data


def test_the_error_is_that_of_chips_and_samples():
    """10,000 experiments of 6 chips and 20 samples: the errors that are told are the spread that there is."""
    random = np.random.default_rng(0)
    chips, samples, times = 6, 20, 10_000
    found = [
        compare(
            0.5 * random.normal(size=(chips, 1))
            + 0.8 * random.normal(size=(1, samples))
            + random.normal(size=(chips, samples))
        )
        for _ in range(times)
    ]
    means, errors = np.array([(each.mean, each.error) for each in found]).T
    true = np.sqrt(0.25 / chips + 0.64 / samples + 1 / (chips * samples))
    assert means.std() == pytest.approx(true, rel=0.03)  # 4 standard errors: 1 / sqrt(2 * 10,000) each
    assert np.sqrt((errors**2).mean()) == pytest.approx(true, rel=0.03)


def test_beyond_is_rarely_wrong():
    random = np.random.default_rng(1)
    wrong = sum(compare(0.5 * random.normal(size=(4, 1)) + random.normal(size=(1, 50))).beyond() for _ in range(2000))
    assert wrong < 2000 * (0.025 + 4 * np.sqrt(0.025 / 2000)) * 1.2  # the degrees of freedom are approximate


def test_one_chip_and_one_sample_tell_nothing():
    found = compare(np.array([[1.0]]))
    assert np.isnan(found.error)
    assert not found.beyond()


def test_one_without_any_error():
    assert Difference(0.3, 0.0).beyond()
    assert not Difference(0.0, 0.0).beyond()


class Share:
    """A score that is no mean over samples: the share of hits among what was said."""

    def reset(self):
        self.hits = self.said = 0

    def update(self, output, target):
        said = output.argmax(1) == 1
        self.hits += int((said & (target == 1)).sum())
        self.said += int(said.sum())

    def compute(self):
        return self.hits / self.said


def scored(metric: Metric, batches: int) -> tuple[list[np.ndarray], float]:
    torch.manual_seed(0)
    x, y = torch.randn(400, 3), torch.randint(2, (400,))
    data = Data(list(zip(x.split(400 // batches), y.split(400 // batches), strict=True)), torch.device("cpu"))
    network = torch.nn.Linear(3, 2)
    found = score_networks(ask_alone(network), data, recording(metric))
    assert found.values == score_networks(ask_alone(network), data, metric).values
    return list(found.details), found.values[0]


def test_scores_of_samples_are_noted_and_the_whole_is_what_it_was():
    (row,), value = scored(METRICS["accuracy"], 7 + 1)
    assert row.shape == (400,)
    assert row.mean() == pytest.approx(value)


def test_of_other_scores_pseudo_values():
    (row,), value = scored(Metric("share", Share(), higher_is_better=True), 20)
    assert row.shape == (GROUPS,)
    assert row.mean() == pytest.approx(value, abs=0.01)  # the jackknife's bias
    assert 0.2 < row.std(ddof=1) / np.sqrt(GROUPS) / np.sqrt(value * (1 - value) / 200) < 3


def test_of_one_batch_nothing_is_known():
    (row,), value = scored(Metric("share", Share(), higher_is_better=True), 1)
    assert row.tolist() == [value]


def test_a_metric_that_cannot_do_with_a_part():
    class Whole(Share):
        def compute(self):
            if self.said < 150:
                raise ZeroDivisionError
            return 1.0

    (row,), _ = scored(Metric("whole", Whole(), higher_is_better=True), 2)
    assert np.isnan(row).all()
    assert len(row) == 2  # of one shape with those of networks of which parts can be scored


def test_transforms_are_applied_once_and_one_result_is_picked():
    torch.manual_seed(0)
    data = Data([(torch.randn(5, 3), torch.randint(2, (5,))) for _ in range(4)], torch.device("cpu"))
    model = torch.nn.Linear(3, 2)

    class Both(Share):
        def compute(self):
            return {"share": super().compute() if self.said else 0.0}

    def turn(output, target):
        return -output, target

    for metric in (
        Metric("share", Both(), transform=turn, pick="share"),
        Metric("right", METRICS["accuracy"].score, transform=turn),
    ):
        found = score_networks(ask_alone(model), data, recording(metric))
        assert found.values == score_networks(ask_alone(model), data, metric).values
        assert len(found.details) == 1
