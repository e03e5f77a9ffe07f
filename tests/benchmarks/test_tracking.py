"""The benchmark of tracking trains, logs and prints its table. No time is asserted."""

import pytest


@pytest.mark.slow
def test_it_runs(monkeypatch, capsys):
    for package in ("mlflow", "optuna", "sklearn"):
        pytest.importorskip(package)
    from benchmarks import tracking

    monkeypatch.setitem(tracking.NETWORKS, "tiny", ["data.name=digits", "data.limit=20", "model=mlp"])
    monkeypatch.setattr("sys.argv", ["tracking", "--epochs", "1", "--networks", "tiny"])
    tracking.main()
    head, _, row = capsys.readouterr().out.splitlines()
    assert [part in head for part in ("epoch", "checkpoint", "MLflow", "Optuna", "overhead")] == [True] * 5
    assert row.startswith("tiny")
    assert row.endswith("%")
