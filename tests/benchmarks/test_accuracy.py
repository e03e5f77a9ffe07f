import re
from pathlib import Path

import pytest
import torch

from benchmarks import accuracy

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


@pytest.mark.slow
def test_a_row_reads_as_in_the_page(capsys):
    quick = ["data.limit=200", "optimization.epochs=1", "evaluation.chips=2", 'evaluation.times=["1s"]']
    accuracy.main(["--networks", "digits-mlp", "--devices", "pcm", "--seeds", "3", "--set", *quick])
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == accuracy.circumstances()
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| digits, MLP", "pcm", "seed 3", kind] for kind in ("plain", "hardware-aware")
    ]
    assert all(
        re.fullmatch(r"\d+\.\d\d \| \d+\.\d\d ± \d+\.\d\d \| \d+\.\d\d \|", row.split(" | ", 4)[4]) for row in rows
    )


@pytest.mark.slow
def test_a_row_of_the_page_comes_out_again():
    """Exactly with the torch and the instructions that made it; elsewhere as another training seed would."""
    text = PAGE.read_text(encoding="utf-8")
    told = re.search(r"torch [\d.]+, AVX\d+, 1 CPU thread", text)
    assert told, "the page says what it was made with"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        same = accuracy.circumstances() == told[0]
        reports = accuracy.reports_of("digits-mlp", "pcm", 0)
    finally:
        torch.set_num_threads(threads)
    for kind, report in reports.items():
        row = re.search(rf"^\| digits, MLP \| {kind} \| (.*) \|$", text, re.MULTILINE)
        assert row, kind
        if same:
            assert row[1].split(" | ") == accuracy.cells_of(report)
        else:  # three seeds lie within a point
            then, now = (float(cells[-2].split(" ")[0]) for cells in (row[1].split(" | "), accuracy.cells_of(report)))
            assert now == pytest.approx(then, abs=1.5)
