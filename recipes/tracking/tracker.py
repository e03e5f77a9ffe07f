"""What a recipe may ask of tracking, and tracking that is switched off."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analogsim.recipes.tracking.used_data import UsedData

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """What a recipe may ask of tracking: ``Run`` does it, ``NoRun`` ignores it.

    As a context manager it ends the run: FINISHED, or FAILED where an exception passes (KILLED for Ctrl-C).
    """

    run_id: str
    experiment_id: str

    def metrics(self, values: Mapping[str, float], step: int, *, on: UsedData | None = None) -> None:
        """Log several metrics of one step (an epoch); `on` data: scores of the model that was kept last, too."""

    def inputs(self, data: Sequence[UsedData]) -> None:
        """Say which data the run uses."""

    def model(self, name: str, checkpoint: str | os.PathLike[str], step: int) -> None:
        """Keep a network as a model with a page of its own; the file must stay until the run has ended."""

    def curve(self, name: str, seconds: Sequence[float], values: Sequence[float]) -> None:
        """Log a metric over the time after programming: its step is that time in whole seconds."""

    def figure(self, figure: Figure, path: str) -> None:
        """Keep a figure as it is now as the artifact `path`; its suffix (``.png``, ``.svg``) is the format."""

    def table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """Keep columns of equal length as the table `path` (``.json``), in place of an earlier one there."""

    def text(self, text: str, path: str) -> None:
        """Keep a text as the artifact `path`."""

    def artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Copy a file, or a folder, into the artifacts, under `folder`."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, in place of earlier ones of the same names."""

    def end(self, status: Status = "FINISHED") -> None:
        """End the run and deliver what waits; a second end changes nothing."""

    @property
    def delivered(self) -> bool:
        """Whether all that was logged is in the store: nothing waits, nothing was refused."""
        return True

    def links(self) -> str:
        """Say how to look at this run: the command that opens the UI, and the address in it."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.end()
        else:
            self.end("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")


class NoRun(Tracker):
    """Tracking switched off: every call is accepted and does nothing."""

    run_id = ""
    experiment_id = ""

    def metrics(self, values: Mapping[str, float], step: int, *, on: UsedData | None = None) -> None:
        """See `Tracker`."""

    def inputs(self, data: Sequence[UsedData]) -> None:
        """See `Tracker`."""

    def model(self, name: str, checkpoint: str | os.PathLike[str], step: int) -> None:
        """See `Tracker`."""

    def curve(self, name: str, seconds: Sequence[float], values: Sequence[float]) -> None:
        """See `Tracker`."""

    def figure(self, figure: Figure, path: str) -> None:
        """See `Tracker`."""

    def table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """See `Tracker`."""

    def text(self, text: str, path: str) -> None:
        """See `Tracker`."""

    def artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """See `Tracker`."""

    def tags(self, values: Mapping[str, str]) -> None:
        """See `Tracker`."""

    def end(self, status: Status = "FINISHED") -> None:
        """See `Tracker`."""
