"""Corrections after reading, made only from what a real chip can measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from analogsim.crossbar.gains import GAINS

FROM_DATA = ("batch-norm", "ranges")


@dataclass(frozen=True)
class Compensation:
    """What is corrected, as people write it: ``"column+batch-norm"``.

    Args:
        gain: digital gains on what comes out of a layer, from one measurement right after programming and one now:
            one ``"global"`` gain for the layer, one for each ``"crossbar"``, one for each ``"column"`` of a crossbar;
            None for none.
        batch_norm: whether means and variances of batch norm are estimated again on the chip as it is.
        ranges: whether calibrated ranges of converters are set again on the chip as it is.
    """

    gain: str | None = "global"
    batch_norm: bool = False
    ranges: bool = False

    @classmethod
    def of(cls, text: str | None) -> Self:
        """What a text such as ``"global"`` or ``"column+batch-norm+ranges"`` means; None for nothing.

        Raises:
            ValueError: it is something else, or names two kinds of gain.
        """
        if text is None:
            return cls(None)
        parts = text.split("+") if isinstance(text, str) else [repr(text)]
        gains = [part for part in parts if part in GAINS]
        if len(set(parts)) < len(parts) or len(gains) > 1 or not all(part in GAINS + FROM_DATA for part in parts):
            raise ValueError(
                f"compensation: must be None, or one of {', '.join(GAINS)}, or one of these (or none) and any of "
                f"{', '.join(FROM_DATA)} joined by '+', got {text!r}"
            )
        return cls(gains[0] if gains else None, "batch-norm" in parts, "ranges" in parts)

    @property
    def from_data(self) -> bool:
        """Whether data have to go through the chip for it."""
        return self.batch_norm or self.ranges


def gain_of(compensation: str | None) -> str | None:
    """The kind of gain, where there are no data to do more from.

    Raises:
        ValueError: it is no compensation, or needs data.
    """
    wanted = Compensation.of(compensation)
    if wanted.from_data:
        raise ValueError(
            f"compensation: {compensation!r} needs data that go through the chip; here give one of {', '.join(GAINS)} "
            "or None, and the rest to analogsim.evaluate"
        )
    return wanted.gain
