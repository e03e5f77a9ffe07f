import pytest

from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tasks.tagging import capitals
from analogsim.recipes.train import train

TEXT = "Now is the Winter of our discontent, made glorious Summer by this Son of York. " * 60


def test_letters_are_judged_and_nothing_else(tmp_path):
    (tmp_path / "text.txt").write_text("Ab 9" * 600)
    parts = capitals(str(tmp_path / "text.txt"))
    inputs, targets = parts["train"][0]
    assert inputs[:4].tolist() == [2, 3, 0, 1]  # a, b, space, 9 among " 9ab"
    assert targets[:4].tolist() == [1, 0, -100, -100]
    assert parts["facts"]["vocabulary"] == 4
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [33, 1, 1]


@pytest.mark.parametrize(
    ("folder", "error", "message"),
    [
        (None, ValueError, "name a text file with --folder"),
        ("short.txt", ValueError, "has 5 characters; give 1280 or more"),
        ("missing.txt", FileNotFoundError, "missing.txt"),
    ],
)
def test_what_cannot_be_tagged(tmp_path, folder, error, message):
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(error, match=message):
        capitals(folder and str(tmp_path / folder))


@pytest.mark.slow
def test_a_tagger_learns_and_is_put_on_chips(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    settings = [
        "model=lstm-tagger",
        "data.name=analogsim.recipes.tasks.tagging:capitals",
        f"data.folder={tmp_path / 'text.txt'}",
        "optimization.epochs=12",
        "data.batch_size=4",
        "evaluation.chips=2",
        "tracking.enabled=false",
        f"out={tmp_path}",
    ]
    result = train(load_toml(Config, None, settings), show=False)
    assert all(report.metric == "accuracy" and report.clean > 0.97 for report in result.reports.values())
