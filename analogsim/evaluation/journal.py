"""A file in which chips are kept as they are judged, so that whatever ends the work ends nothing that was done.

One line of JSON for each question (what network, on what hardware, on which data, judged how), one for each chip that
was judged under it, in the order in which they came. Lines are only added, each is on the disk before the next work is
handed out, and each ends in a digest of itself.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import io
import json
import math
import os
import stat
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.evaluation.course import ChipScores, Course
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.metrics import Accumulator, Metric
from analogsim.layers.module import matrices_of
from analogsim.utils.digests import digest, without_addresses
from analogsim.utils.files import lock_file, sync_folder

Question = Mapping[str, Any]
"""What chips are judged by, in plain numbers and text; see `describe_question`."""

# What all parts of one network's evaluation have in common.
_SHARED = ("weights", "network", "data", "metric", "score")
# What is told, but is no part of the question: the clean score differs in rounding from machine to machine.
_TOLD = ("device", "clean")
# What only some questions have.
_OPTIONAL = ("sampling",)
_SEAL = ', "check": "'


@dataclass(frozen=True)
class Journal:
    """A journal, and for which part of the work it is asked.

    Args:
        path: the file; it is made where it is missing, its folder is there.
        name: of the network, where one file holds several.
        part: what of the network is judged: its layers one by one, or with something switched off.
    """

    path: str | os.PathLike[str]
    name: str = ""
    part: str = "everything analog"

    def of(self, part: str) -> Journal:
        """The same one for another part."""
        return replace(self, part=part)

    def kept(self) -> dict[tuple[str, str], frozenset[int]]:
        """The chips that the file holds, by name and part, whatever they were judged by; none where it is missing.

        Raises:
            ValueError: the file is no journal or is damaged, or another process writes to it.
        """
        path = os.fspath(self.path)
        if not os.path.exists(path):
            return {}
        with _owned(path) as file:
            lines = _read(file, path)
        asked = {line["question"]: (line["name"], line["part"]) for line in lines if "question" in line}
        found: dict[tuple[str, str], set[int]] = {}
        for line in lines:
            if "question" not in line:
                found.setdefault(asked[line["of"]], set()).add(line["chip"])
        return {of: frozenset(chips) for of, chips in found.items()}

    @contextmanager
    def opened(self, question: Question) -> Iterator[Record]:
        """The journal's record of one question, for a block, in which no other process may write to the file.

        Args:
            question: what its chips are judged by.

        Raises:
            ValueError: the file is no journal, is damaged, is of another question, or another process writes to it.
            OSError: it cannot be read or written.

        Warns:
            UserWarning: the last line was torn when its process died; it is cut off.
        """
        asked = {"name": self.name, "part": self.part, **question}
        with _owned(os.fspath(self.path)) as file:
            lines = _read(file, os.fspath(self.path))
            record = Record(file, os.fspath(self.path), asked)
            record.take(lines)
            yield record


def describe_question(
    course: Course, *, clean: float, device: str, sampling: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The question that a course puts to chips, whichever they are.

    Args:
        course: what chips go through.
        clean: the score of the digital network.
        device: the hardware, in words.
        sampling: how chips are asked part of the data, and which is the first of them: what later ones are asked
            follows from what earlier ones answered. None: they are asked everything.
    """
    analog = course.analog
    states = [matrix.analog for matrix in matrices_of(analog)]
    tensors = [*analog.named_parameters(remove_duplicate=False), *analog.named_buffers(remove_duplicate=False)]
    hardware = [
        (state.name, state.device, state.crossbar, state.layout, state.input_range, state.output_bound)
        for state in states
    ]
    adapters = [(state.name, state.adapter) for state in states if state.adapter is not None]
    data = course.compensations.adjustments and course.calibration.loader
    corrections = course.compensations.gain, course.compensations.adjustments
    return {
        "weights": digest(dict(tensors)),
        "network": digest(without_addresses(repr(course.calibration.digital))),
        "hardware": digest((hardware, adapters) if adapters else hardware),
        "device": device,
        "times": list(course.times),
        "metric": course.metric.name,
        "score": digest(_rule(course.metric)),
        "data": digest([digest(batch) for batch in course.data]),  # which may be more than memory holds
        "compensation": course.compensations.text,
        "correction": digest(corrections if course.on_chip is None else (*corrections, course.on_chip)),
        "calibration": digest([digest(batch) for batch in data]) if data else None,
        "faults": None if course.faults is None else digest(course.faults),
        "clean": clean,
        **({} if sampling is None else {"sampling": dict(sampling)}),
    }


def _rule(metric: Metric) -> tuple[object, ...]:
    """What a metric says, apart from what it has taken in so far."""
    score = metric.score
    if isinstance(score, Accumulator):
        score = copy.deepcopy(score)
        score.reset()
    told = score, metric.unit, metric.reads, metric.finite, metric.higher_is_better
    ways = (metric.transform, metric.pick)
    return told if ways == (None, None) else (*told, *ways)


def as_journal(journal: str | os.PathLike[str] | Journal | None) -> Journal | None:
    """The journal that is meant by a path, a value or None."""
    if journal is None or isinstance(journal, Journal):
        return journal
    if not isinstance(journal, str | os.PathLike):
        raise InvalidTypeError(f"evaluate: journal must be the path of a file, got {journal!r}")
    return Journal(journal)


class Record:
    """The chips of one question in a journal.

    Args:
        file: the journal, open, at its end.
        path: its path, for messages.
        question: what chips are judged by.
    """

    def __init__(self, file: BinaryIO, path: str, question: Question) -> None:
        self._file = file
        self._path = path
        self._question = question
        self._id = _key(question)
        self._chips: dict[int, ChipScores] = {}
        self._known = False

    def take(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Take what the file holds.

        Raises:
            ValueError: it holds chips of another question of the same part, or one chip twice.
        """
        for number, line in enumerate(lines, 1):
            if "question" in line:
                self._known |= line["question"] == self._id
                self._compare(line)
            elif line["of"] == self._id:
                if line["chip"] in self._chips:
                    raise InvalidValueError(
                        f"journal: line {number} of {self._path!r} holds chip {line['chip']} once more"
                    )
                details = tuple(_unpacked(text) for text in line.get("details", ()))
                variances = tuple(line.get("variances", ()))
                chip = ChipScores(line["chip"], tuple(line["scores"]), tuple(line["idle"]), details, variances)
                self._chips[chip.seed] = chip

    def _compare(self, line: Mapping[str, Any]) -> None:
        """Refuse a file that is of another question."""
        mine = self._question
        if line["name"] != mine["name"]:
            return
        same_part = line["part"] == mine["part"]
        differing = [
            f"{name} ({_told(line.get(name))} there, {_told(mine.get(name))} now)"
            for name in dict.fromkeys((*mine, *_OPTIONAL))
            if (same_part or name in _SHARED) and name not in _TOLD and line.get(name) != mine.get(name)
        ]
        if not math.isclose(line["clean"], mine["clean"], rel_tol=1e-6, abs_tol=1e-9) and not differing:
            if math.isnan(line["clean"]) and math.isnan(mine["clean"]):
                return
            differing = [f"clean score ({line['clean']!r} there, {mine['clean']!r} now)"]
        if differing:
            raise InvalidValueError(
                f"journal: {self._path!r} holds chips of another question, with another "
                f"{', another '.join(differing)}; give a file of its own, or ask as before"
            )

    def done(self, seeds: Iterable[int]) -> dict[int, ChipScores]:
        """Those of some chips that were judged."""
        return {seed: self._chips[seed] for seed in seeds if seed in self._chips}

    def add(self, judged: Iterable[ChipScores]) -> None:
        """Keep chips; they are on the disk when this returns."""
        lines = [] if self._known else [{"question": self._id, **self._question}]
        for chip in judged:
            self._chips[chip.seed] = chip
            lines.append(
                {
                    **{"of": self._id, "chip": chip.seed, "scores": list(chip.values), "idle": list(chip.idle)},
                    **({"details": [_packed(part) for part in chip.details]} if chip.details else {}),
                    **({"variances": list(chip.variances)} if chip.variances else {}),
                }
            )
        self._known = True
        self._file.write(b"".join(map(_sealed, lines)))
        self._file.flush()
        os.fsync(self._file.fileno())


def _packed(details: FloatArray) -> str:
    """An array as text, every bit of it."""
    buffer = io.BytesIO()
    np.save(buffer, details, allow_pickle=False)
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


def _unpacked(text: str) -> FloatArray:
    found: FloatArray = np.load(io.BytesIO(zlib.decompress(base64.b64decode(text))), allow_pickle=False)
    return found


def _told(value: object) -> str:
    text = str(value) if isinstance(value, str | None) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _key(question: Question) -> str:
    asked = {name: value for name, value in question.items() if name not in _TOLD}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _sealed(line: Mapping[str, Any]) -> bytes:
    """A line with the digest of what comes before it."""
    text = json.dumps(line)[:-1]
    return f'{text}{_SEAL}{_check(text)}"}}\n'.encode()


def _check(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unsealed(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None where it is not what was written."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    content, _, seal = text.rpartition(_SEAL)
    if not content or seal != f'{_check(content)}"}}\n':
        return None
    found = json.loads(content + "}")
    return found if isinstance(found, dict) else None


def _read(file: BinaryIO, path: str) -> list[dict[str, Any]]:
    """What a journal holds; a torn end is cut off, and said."""
    lines, end = [], 0
    torn = None
    file.seek(0)
    for number, line in enumerate(file, 1):
        found = _unsealed(line)
        if found is None:
            torn = torn or number
            continue
        if torn is not None:
            raise InvalidValueError(
                f"journal: line {torn} of {path!r} is damaged; take that line out to have its chips judged again, or "
                "give another file"
            )
        lines.append(found)
        end += len(line)
    if torn is not None:
        if not lines and torn == 1 and not _begins_as_one(file):
            raise InvalidValueError(f"journal: {path!r} is there and is no journal; give another file")
        warnings.warn(
            f"journal: the end of {path!r}, from line {torn}, was torn when its process died, and is cut off; "
            "its chips are judged again",
            stacklevel=2,
        )
        file.truncate(end)
    file.seek(end)
    return lines


def _begins_as_one(file: BinaryIO) -> bool:
    """Whether a file may be the torn first line of a journal."""
    file.seek(0)
    start = file.read(13)
    return start == b'{"question": '[: len(start)]


_LOCK = threading.Lock()
_HELD: set[str] = set()


@contextmanager
def _owned(path: str) -> Iterator[BinaryIO]:
    """A file that nobody else has open here meanwhile.

    The lock is one that goes with this process, whatever ends it, and that child processes do not inherit: workers that
    outlive it for a moment must not keep the next one out.
    """
    place = os.path.realpath(path)
    with _LOCK:
        if place in _HELD:
            raise InvalidValueError(
                f"journal: {path!r} is being written to by this process; give each call a file of its own"
            )
        _HELD.add(place)
    try:
        with contextlib.closing(_opened(place, path)) as file:
            if not lock_file(file):
                raise InvalidValueError(
                    f"journal: {path!r} is being written to by another process; wait for it, or give a file of its own"
                )
            yield file
    finally:
        with _LOCK:
            _HELD.discard(place)


def _opened(place: str, path: str) -> BinaryIO:
    """A file to read and to write, made where it is missing.

    Raises:
        OSError: there is no folder for it, or it may not be written.
        ValueError: it is no file, but a device or a pipe, which gives back nothing of what it takes.
    """
    new = not os.path.exists(place)
    try:
        number = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise type(error)(
            error.errno, f"journal: cannot write to it ({error.strerror}); give a file in a folder that is there", path
        ) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InvalidValueError(
            f"journal: {path!r} is no ordinary file, from which chips could be read again; give another one"
        )
    if new:
        sync_folder(os.path.dirname(place))
    return os.fdopen(number, "r+b")
