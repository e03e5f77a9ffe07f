from __future__ import annotations

import inspect

import pytest

from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.tracking.tracker import NoRun, Status, Tracker

CALLS = [name for name, value in vars(Tracker).items() if inspect.isfunction(value) and not name.startswith("_")]


def test_tracking_switched_off_takes_what_a_run_takes() -> None:
    assert {"metrics", "curve", "figure", "table", "text", "artifact", "tags", "end", "links"} <= set(CALLS)
    for name in CALLS:
        asked = inspect.signature(getattr(Tracker, name))
        for kind in (Run, NoRun):
            assert inspect.signature(getattr(kind, name)) == asked, f"{kind.__name__}.{name}"


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_ends_as_what_passes_through_it(error: BaseException | None, status: Status) -> None:
    ends: list[Status] = []

    class Noted(NoRun):
        def end(self, status: Status = "FINISHED") -> None:
            ends.append(status)

    def work() -> None:
        with Noted():
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    assert ends == [status]
