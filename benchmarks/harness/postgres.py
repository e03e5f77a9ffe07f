"""A PostgreSQL of one's own, from the machine's programs, in a folder and on a free port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


def programs() -> Path | None:
    """The folder of PostgreSQL's programs: on the path, or where Debian puts the newest."""
    found = shutil.which("pg_ctl")
    beside = [Path(found).resolve().parent] if found else []
    for folder in [*beside, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        if all((folder / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    return None


def free_port() -> int:
    """A port of 127.0.0.1 where nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A cluster on a free port, with a database each for Optuna and MLflow.

    Args:
        folder: for its data, where the user who runs it may go: root hands it to another one.
        bin_folder: of its programs.
    """

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        import psycopg

        self.data = folder / "data"
        self.port = free_port()
        self._bin = bin_folder
        self._as: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            owner = _anybody()
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            self._as = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        self._call("initdb", "--username", "analogsim", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
        self.start()
        with psycopg.connect(self._url("postgresql", "postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE optuna")
            connection.execute("CREATE DATABASE mlflow")

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        return self._url("postgresql+psycopg", database)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._call("pg_ctl", "-w", "-l", str(self.data / "log"), "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it, in order (``"fast"``) or as if it had crashed (``"immediate"``), and wait until it is gone."""
        self._call("pg_ctl", "-w", "-m", how, "stop")

    def _url(self, driver: str, database: str) -> str:
        return f"{driver}://analogsim@127.0.0.1:{self.port}/{database}"

    def _call(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._bin / program), "-D", str(self.data), *arguments]
        # to a file: a pipe would stay open in the server, and be waited for
        with tempfile.TemporaryFile("w+") as said:
            code = subprocess.run(command, cwd="/", stdout=said, stderr=said, check=False).returncode
            said.seek(0)
            if code != 0:
                raise RuntimeError(f"{program}: {said.read()}")


def _anybody() -> pwd.struct_passwd:
    """A user who is not root."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")
