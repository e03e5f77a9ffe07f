"""A cluster of one's own: found, begun, stopped as it crashes, begun again with what it held."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from benchmarks.harness.postgres import Postgres, free_port, programs


def test_ports_are_free() -> None:
    assert 0 < free_port() < 2**16


def test_programs_are_found_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("initdb", "pg_ctl", "postgres"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs() == tmp_path
    (tmp_path / "initdb").unlink()
    assert programs() != tmp_path


@pytest.mark.slow
def test_it_holds_what_it_was_told_over_a_crash() -> None:
    psycopg = pytest.importorskip("psycopg", reason="needs analogsim-torch[postgres]")
    found = programs()
    if found is None:
        pytest.skip("needs PostgreSQL's initdb and pg_ctl: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="analogsim-postgres-") as folder:  # tmp_path is closed to other users
        server = Postgres(Path(folder), found)
        url = server.url("optuna").replace("+psycopg", "")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept (x int)")
        server.stop("immediate")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
        server.stop()
        with pytest.raises(RuntimeError, match="pg_ctl"):
            server.stop()
