import os
import warnings
from pathlib import Path

import pytest
import torch

from analogsim.recipes.tasks.sources import text
from analogsim.recipes.tasks.sources.parts import DataWarning

DATA = Path(os.environ.get("ANALOGSIM_TEST_DATA", Path(__file__).parents[5] / "shared" / "data"))


@pytest.fixture
def write(tmp_path):
    def written(content, encoding="utf-8"):
        path = tmp_path / "some (old) text.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return str(path)

    return written


def test_windows_and_the_characters_after_them(write):
    letters = "dbca" * 50
    parts = text.read(write(letters) + "(context=4)")
    assert parts.task == "language-modelling"
    assert parts.labels is None
    assert parts.facts == {
        "shape": (4,),
        "vocabulary": 4,
        "classes": 4,
        "outputs": 4,
        "characters": "abcd",
        "context": 4,
        "scaled": True,
    }
    inputs, targets = parts.train.tensors
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.shape == targets.shape == (44, 4)  # 180 characters, of which the last window needs one more
    numbers = torch.tensor(["abcd".index(letter) for letter in letters])
    for at, (window, following) in enumerate(zip(inputs, targets, strict=True)):
        assert torch.equal(window, numbers[4 * at : 4 * at + 4])
        assert torch.equal(following, numbers[4 * at + 1 : 4 * at + 5])


def test_the_parts_are_pieces_that_follow_one_another(write):
    content = "".join(chr(0x4E00 + at) for at in range(200))
    with pytest.warns(DataWarning, match="20 characters are in validation or test only"):
        parts = text.read(write(content) + "(context=1)")
    targets = [part.tensors[1].flatten().tolist() for part in (parts.train, parts.validation, parts.test)]
    assert targets == [list(range(1, 180)), list(range(181, 190)), list(range(191, 200))]


def test_windows_of_training_may_overlap_at_no_cost(write):
    path = write("abcdefghij" * 100)
    apart, close = text.read(f"{path}(context=10)"), text.read(f"{path}(context=10, stride=1)")
    assert (len(apart.train), len(close.train)) == (89, 890)
    assert torch.equal(close.train[[7]][0][0], torch.tensor([7, 8, 9, 0, 1, 2, 3, 4, 5, 6]))
    assert close.train.tensors[0].untyped_storage().nbytes() == 8 * 900
    assert len(close.test) == len(apart.test) == 4


def test_ends_of_lines_and_a_mark_at_the_head(write):
    lines = "one\ntwo\n" * 50
    expected = text.read(write(lines) + "(context=2)")
    for other in (lines.replace("\n", "\r\n"), "\ufeff" + lines):
        parts = text.read(write(other) + "(context=2)")
        assert parts.facts == expected.facts
        assert torch.equal(parts.train.tensors[0], expected.train.tensors[0])


def test_characters_that_training_lacks_are_said(write):
    with pytest.warns(DataWarning, match="2 characters are in validation or test only, so that .*: 'yz'"):
        parts = text.read(write("ab" * 95 + "abyzababab") + "(context=3)")
    assert parts.facts["vocabulary"] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text.read(write("ab" * 100) + "(context=3)")


def test_other_encodings(write):
    path = write("äöü" * 100, "latin-1")
    with pytest.raises(ValueError, match=r"is not utf-8 at byte 0; say .*text:FILE\(encoding='latin-1'\)"):
        text.read(path)
    assert text.read(f"{path}(encoding='latin-1', context=3)").facts["characters"] == "äöü"
    with pytest.raises(ValueError, match=r"encoding must be one that Python knows, such as 'utf-8', got 'klingon'"):
        text.read(f"{path}(encoding='klingon')")
    with pytest.raises(ValueError, match=r"encoding must be one that Python knows.*, got 3"):
        text.read(f"{path}(encoding=3)")
    path = write("abc" * 100, "utf-16-le")
    with pytest.raises(ValueError, match=r"has bytes of zero.* say encoding='utf-16'"):
        text.read(path)


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        ("", "", "has 0 characters, too few: .* give 1300 or more, or a smaller context"),
        ("ab" * 640, "", "has 1280 characters, too few: a part has 64, and a window of context=64 takes 65"),
        ("a" * 5000, "", "one character only, 'a'"),
        ("ab" * 700, "(context=0)", "context must be a whole number >= 1, got 0"),
        ("ab" * 700, "(stride=0)", "stride must be a whole number >= 1, got 0"),
        ("ab" * 700, "(contex=8)", r"no option 'contex'; did you mean 'context'\?"),
    ],
)
def test_what_is_refused(write, content, options, why):
    with pytest.raises(ValueError, match=why) as error:
        text.read(write(content) + options)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(ValueError, match="is a folder; give one file"):
        text.read(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        text.read(str(tmp_path / "x.txt"))


def test_tiny_shakespeare():
    file = DATA / "tiny-shakespeare.txt"
    if not file.is_file():
        pytest.skip(f"needs {file.name}, in the folder that ANALOGSIM_TEST_DATA names")
    parts = text.read(str(file))
    assert parts.facts["vocabulary"] == 65
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [15685, 871, 871]
