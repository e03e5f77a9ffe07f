"""Something that one worker of a study at a time may do; if it dies, another may."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from analogsim.errors import OperationError, UnavailableError
from analogsim.recipes.study import shared_database
from analogsim.recipes.study.optuna_private import attributes_table, engine_of, journal_of, storage_of
from analogsim.recipes.study.shared_database import SILENT
from analogsim.recipes.training.stopping import pause
from analogsim.utils.files import lock_file

if TYPE_CHECKING:
    import optuna

_ONE_AT_A_TIME = threading.Lock()


class LostLease(OperationError):  # noqa: N818 - what another worker goes on with is no error
    """The others took this worker for dead, and one of them does what it was doing.

    Cause: this worker was silent for four heartbeats: stopped, swapped out, or cut off.
    Cure: none is needed; a larger `study.heartbeat` waits longer.
    """


class Lease:
    """Something that one worker of a study at a time may do; if it dies, another may.

    The holder renews an attribute of the study every `beat` seconds. Whoever wants it watches that attribute by its own
    clock, so that the clocks of several machines do not have to agree.

    Args:
        study: the study.
        name: of the attribute.
        beat: seconds.
    """

    def __init__(self, study: optuna.Study, name: str, beat: float) -> None:
        self._study = study
        self._name = name
        self._beat = beat
        self._me = uuid.uuid4().hex
        self._mine: list[Any] | None = None
        self._lost = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def held(self, unless: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the lease and hold it for the block; False, without it, once ``unless()`` is true."""
        self._mine, self._lost = None, False
        seen, since = None, time.monotonic()
        while True:
            if unless():
                yield False
                return
            asked = time.monotonic()
            now = self._study.user_attrs.get(self._name)
            # Where the answer took long the storage was away, and the holder could not give a sign of life either.
            if now != seen or time.monotonic() - asked > self._beat:
                seen, since = now, time.monotonic()
            if (now is None or time.monotonic() - since > SILENT * self._beat) and self._write(now, 0):
                break
            pause(min(1.0, self._beat / 2))
        stop = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(stop,), daemon=True)
        renewing.start()
        try:
            yield not unless()  # what another did while we took the lease need not be done again
        finally:
            stop.set()
            renewing.join()
            self._write(self._mine, None)

    def free(self) -> bool:
        """Whether nobody else has it; one who died has it until somebody waits for it."""
        with self._lock:
            now = self._study.user_attrs.get(self._name)
            return now is None or now == self._mine

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            LostLease: this worker was silent for so long that another has taken it.
        """
        with self._lock:
            held = not self._lost and self._study.user_attrs.get(self._name) == self._mine
        if not held:
            raise LostLease(f"{self._name}: another worker has taken it over")

    def _write(self, old: Any, count: int | None) -> bool:
        new = None if count is None else [self._me, count]
        with self._lock:
            if not exchange(self._study, self._name, old, new):
                return False
            self._mine = new
            return True

    def _renew(self, stop: threading.Event) -> None:
        count = 0
        while not stop.wait(self._beat) and not self._lost:
            count += 1
            with contextlib.suppress(*shared_database.storage_errors()):  # the next beat comes
                self._lost = not self._write(self._mine, count)


def exchange(study: optuna.Study, name: str, old: Any, new: Any) -> bool:
    """Set an attribute of the study from `old` to `new` (None: none) in one step; False where it is not `old` any more.

    Optuna has no such step. Without it two workers may both believe to be the first.

    Raises:
        UnavailableError: the storage is one in which no such step can be made.
    """
    engine = engine_of(study)
    if engine is None:
        with _alone(study):
            if study.user_attrs.get(name) != old:
                return False
            study.set_user_attr(name, new)
            return True
    import sqlalchemy

    table = attributes_table()
    study_id = storage_of(study).get_study_id_from_name(study.study_name)
    where = sqlalchemy.and_(table.c.study_id == study_id, table.c.key == name, table.c.value_json == json.dumps(old))
    change = sqlalchemy.update(table).where(where).values(value_json=json.dumps(new))
    make = sqlalchemy.insert(table).values(study_id=study_id, key=name, value_json=json.dumps(new))
    try:
        with engine.begin() as connection:
            if connection.execute(change).rowcount == 1:
                return True
            if old is not None:
                return False
            connection.execute(make)
            return True
    except sqlalchemy.exc.IntegrityError:  # another has made it meanwhile
        return False


@contextlib.contextmanager
def _alone(study: optuna.Study) -> Iterator[None]:
    """Keep all others from a step in a storage that has no transactions: threads from memory, processes from a journal.

    The journal's own lock is held for each of its lines only, so that another file beside it is locked; by the system,
    which frees it when its holder dies.
    """
    import optuna

    storage, journal = storage_of(study), journal_of(study)
    with _ONE_AT_A_TIME, contextlib.ExitStack() as scope:
        if journal is not None:
            try:
                file = scope.enter_context(open(f"{journal}.steps", "ab"))
                while not lock_file(file):
                    pause(0.01)
            except OSError as error:
                raise _unfit(f"{journal}.steps cannot be locked ({error.strerror or error})") from error
        elif not isinstance(storage, optuna.storages.InMemoryStorage):
            raise _unfit(f"{type(storage).__name__} has no step that two workers cannot both make")
        yield


def _unfit(why: str) -> UnavailableError:
    return UnavailableError(
        f"study.storage: {why}, so that they would take one lease; use a database (optuna.storages.RDBStorage: SQLite "
        "on one machine, PostgreSQL on several), or a journal in a file of this machine"
    )
