"""Recordings as log-mel features, ``audio:PATH``: wav files in class folders, or named by their class."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from analogsim.errors import InvalidValueError
from analogsim.recipes.tasks.sources.class_folders import Kind, Listing, list_files
from analogsim.recipes.tasks.sources.log_mel import log_mel, mel_filters
from analogsim.recipes.tasks.sources.options import (
    check_choice,
    check_positive,
    check_whole,
    existing,
    path_and_options,
)
from analogsim.recipes.tasks.sources.parts import DataWarning, Parts, first_few
from analogsim.recipes.tasks.sources.threads import in_threads
from analogsim.recipes.tasks.sources.wav import read_wav

_OFFICIAL = 5  # recordings with an index below it are the test part of the Free Spoken Digit Dataset
_NUMBERED = re.compile(r"(?P<label>[^_]+)_(?P<speaker>.+)_(?P<index>\d+)")


def _label_of(path: Path) -> str | None:
    """What stands before the first underscore of a file's name."""
    label, underscore, _ = path.stem.partition("_")
    return label if underscore and label else None


_KIND = Kind("audio", "wav files", (".wav", ".wave"), _label_of)


def read(path: str) -> Parts:
    """Recordings as log-mel features of one length, and their classes.

    Files lie in class folders, as images do (see `class_folders.list_files`), or are named ``{label}_*.wav``, in
    one folder or in those of the parts. Where all are named ``{label}_{speaker}_{index}.wav``, and every label
    and speaker has the indices below 5 and others, these are the test part: the official split of the Free Spoken Digit
    Dataset.

    Several channels are averaged. What is longer than ``frames`` is cut at the end, what is shorter followed by
    silence.

    Args:
        path: the folder, with options in parentheses if any: ``mels=40`` bands; ``frames=64``; ``hop=0.016`` and
            ``window=0.032``, from frame to frame and of one of them, seconds; ``rate=8000`` resamples what has another
            rate, Hz; ``layout="image"`` (1, mels, frames) or ``"sequence"`` (frames, mels); ``test_index=5``, the test
            part is the files with an index below it, 0 for none; ``order="text"`` as for images.

    Raises:
        ValueError: layout, a file, or sampling rates that differ with no ``rate``.
        FileNotFoundError: there is no such folder.

    Warns:
        DataWarning: sound was cut, or there is none in a file.
    """
    place, options = path_and_options(path, "audio", _read)
    return _read(place, **options)


@dataclass(frozen=True)
class _Form:
    """What all recordings are brought to; lengths in samples."""

    rate: int
    window: int
    hop: int
    mels: int
    frames: int
    sequence: bool


@dataclass(frozen=True)
class _Heard:
    """One recording: its sampling rate, its length in samples of the common one, and its features."""

    rate: int
    length: int
    silent: bool
    features: Tensor


def _read(
    place: Path,
    *,
    mels: Any = 40,
    frames: Any = 64,
    hop: Any = 0.016,
    window: Any = 0.032,
    rate: Any = None,
    layout: str = "image",
    test_index: Any = None,
    order: str = "numbers",
) -> Parts:
    for name, value in (("mels", mels), ("frames", frames)):
        check_whole("audio", name, value, 1)
    lengths = check_positive("audio", "hop", hop), check_positive("audio", "window", window)
    if rate is not None:
        check_whole("audio", "rate", rate, 1)
    if test_index is not None:
        check_whole("audio", "test_index", test_index, 0)
    check_choice("audio", "layout", layout, ("image", "sequence"))
    listing = list_files(existing(place, "audio", folder=True), _KIND, order)
    parts = _split(place, listing, test_index)
    files = [file for part, _ in parts.values() for file in part]
    # Where no rate is asked for, it is that of the first file, and those of another one are refused.
    base = rate or read_wav(files[0])[0]
    hop, window = (max(1, round(seconds * base)) for seconds in lengths)
    # Transforms are fast of a length that is a power of two.
    form = _Form(base, max(2, 1 << (window - 1).bit_length()), hop, mels, frames, layout == "sequence")
    filters = mel_filters(form.mels, form.window, form.rate)
    heard = dict(zip(files, in_threads(lambda file: _heard(file, form, filters), files), strict=True))
    if rate is None:
        _check_rates({file: one.rate for file, one in heard.items()})
    _say(place, heard, form)
    sets = {
        part: TensorDataset(torch.stack([heard[file].features for file in files]), labels)
        for part, (files, labels) in parts.items()
    }
    facts = {
        "shape": (form.frames, form.mels) if form.sequence else (1, form.mels, form.frames),
        "classes": len(listing.classes),
        "outputs": len(listing.classes),
        "class_names": listing.classes,
        "mels": form.mels,
        "frames": form.frames,
        "rate": form.rate,
    }
    return Parts(
        sets["train"], sets.get("validation"), sets.get("test"), "classification", facts, sets["train"].tensors[1]
    )


def _split(place: Path, listing: Listing, test_index: int | None) -> dict[str, tuple[list[Path], Tensor]]:
    """The files and labels of each part, after the indices in their names where that is the split."""
    parts = {part: (list(files), listing.labels[part]) for part, files in listing.files.items()}
    if test_index == 0:
        return parts
    files, labels = parts["train"]
    names = _numbered_names(files)
    if names is None or "test" in parts or (test_index is None and not _is_official(names, listing)):
        if test_index is None:
            return parts
        raise InvalidValueError(
            f"audio:{place}: test_index={test_index} needs files named {{label}}_{{speaker}}_{{index}}.wav and no "
            "folder test"
        )
    below = test_index or _OFFICIAL
    held = torch.tensor([index < below for _, index in names])
    if held.all() or not held.any() or len(set(labels[~held].tolist())) < len(listing.classes):
        raise InvalidValueError(
            f"audio:{place}: test_index={below} leaves a part, or a class to train on, without files"
        )

    def part(mask: Tensor) -> tuple[list[Path], Tensor]:
        return [file for file, chosen in zip(files, mask.tolist(), strict=True) if chosen], labels[mask]

    return {**parts, "train": part(~held), "test": part(held)}


def _numbered_names(files: Sequence[Path]) -> list[tuple[tuple[str, str], int]] | None:
    """((label, speaker), index) of each file, if all are named so."""
    found = [match for file in files if (match := _NUMBERED.fullmatch(file.stem)) is not None]
    if len(found) < len(files):
        return None
    return [((match["label"], match["speaker"]), int(match["index"])) for match in found]


def _is_official(names: Sequence[tuple[tuple[str, str], int]], listing: Listing) -> bool:
    """Whether files in one folder have, of each label and speaker, the test part's indices and others."""
    groups = defaultdict(set)
    for group, index in names:
        groups[group].add(index)
    return listing.flat and len(listing.files) == 1 and all(set(range(_OFFICIAL)) < one for one in groups.values())


def _check_rates(rates: Mapping[Path, int]) -> None:
    """Refuse sampling rates that differ."""
    counts = Counter(rates.values())
    if len(counts) > 1:
        examples = [f"{next(file for file in rates if rates[file] == rate)} has {rate} Hz" for rate in counts]
        usual = counts.most_common(1)[0][0]
        raise InvalidValueError(
            f"audio: {len(counts)} sampling rates: {first_few(examples)}; let them be resampled by an option: "
            f"audio:PATH(rate={usual})"
        )


def _say(place: Path, heard: Mapping[Path, _Heard], form: _Form) -> None:
    """Warn of what is cut, and of what is silent."""
    held = form.frames * form.hop
    longer = [one.length for one in heard.values() if one.length > held]
    if longer:
        warnings.warn(
            f"audio:{place}: {len(longer)} of {len(heard)} recordings are longer than {held / form.rate:.3g} s and "
            f"cut; frames={-(-max(longer) // form.hop)} would hold the longest",
            DataWarning,
            stacklevel=4,
        )
    quiet = [str(file.relative_to(place)) for file, one in heard.items() if one.silent]
    if quiet:
        warnings.warn(f"audio:{place}: nothing but zeros in {first_few(quiet)}", DataWarning, stacklevel=4)


def _heard(file: Path, form: _Form, filters: Tensor) -> _Heard:
    rate, sound = read_wav(file)
    if rate != form.rate:
        from scipy.signal import resample_poly

        common = gcd(rate, form.rate)
        sound = resample_poly(sound, form.rate // common, rate // common).astype(np.float32)
    samples = form.frames * form.hop
    whole = np.zeros(samples, dtype=np.float32)
    whole[: len(sound)] = sound[:samples]
    features = log_mel(torch.from_numpy(whole), filters, form.hop)
    return _Heard(
        rate, len(sound), not sound.any(), features.T.contiguous() if form.sequence else features.unsqueeze(0)
    )
