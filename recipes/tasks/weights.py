"""Weights that are there already: files of tensors, read without running what is in them, and fitted to a network."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidValueError, MissingFileError
from analogsim.utils.tensor_files import read_archive

# Under which names training scripts keep a state dict beside other things, the likeliest first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "weights", "params", "ema")
_COMPILED = "_orig_mod."  # what torch.compile puts before names, wherever a compiled module stands
_INDEX = ".index.json"
# What a folder of weights is known by, as Hugging Face's libraries write them.
_OF_FOLDERS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_CODE = re.compile(r"GLOBAL (\S+)")  # what torch's reader refused to import
_FEW = 4


def check_file(path: str) -> None:
    """Whether there is such a file, or a folder with one that is known.

    Raises:
        FileNotFoundError: not.
    """
    place = Path(path).expanduser()
    if place.is_dir() and not any((place / name).is_file() for name in _OF_FOLDERS):
        raise MissingFileError(
            f"weights: the folder {path!r} holds none of {', '.join(_OF_FOLDERS)}; give the path of a file"
        )
    if not place.exists():
        raise MissingFileError(f"weights: no file {path!r} (in {os.getcwd()}); give the path to it from here")


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a file by their names.

    Args:
        path: a safetensors file, or what torch.save made of a state dict, alone or under a name such as
            ``"state_dict"``; a checkpoint of ``analogsim train`` too. Of several files the index
            (``model.safetensors.index.json``) that says which tensor lies where, or the folder that holds it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else, or could only be read by running what is in it.
    """
    check_file(path)
    place = Path(path).expanduser()
    if place.is_dir():
        place = next(place / name for name in _OF_FOLDERS if (place / name).is_file())
    return _read_several(place) if place.name.endswith(_INDEX) else _read_one(place)


def _read_several(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / name for name in names]
        strange = [name for name in names if Path(name).name != name]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidValueError(
            f"weights: {str(index)!r} is no index of weights; it needs a weight_map, of tensors to files"
        ) from error
    if strange:
        raise InvalidValueError(f"weights: {str(index)!r} names {strange[0]!r}, which does not lie beside it")
    for file in files:
        if not file.is_file():
            raise MissingFileError(f"weights: {str(index)!r} names {file.name!r}, which is missing beside it")
    return {key: value for file in files for key, value in _read_one(file).items()}


def _read_one(place: Path) -> dict[str, Tensor]:
    path = str(place)
    with place.open("rb") as file:
        start = file.read(9)
    if place.suffix == ".safetensors" or start[8:] == b"{":
        from safetensors.torch import load_file

        try:
            return load_file(place)
        except Exception as error:
            raise InvalidValueError(
                f"weights: {path!r} is no whole safetensors file: {shorten(str(error), 120)}"
            ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats, for people who write them; what cannot be read is told below
            content = read_archive(place)
    except Exception as error:
        raise InvalidValueError(
            f"weights: {path!r} is neither a safetensors file nor one of tensors alone, which is all that is read: "
            f"{_why(error)}; save torch.save(model.state_dict(), ...) where it was made"
        ) from error
    found = _state_dict(content)
    if found is None:
        got = f"a dict of {_few(map(str, content)) or 'nothing'}" if isinstance(content, Mapping) else None
        raise InvalidValueError(
            f"weights: {path!r} holds no state dict, a dict of tensors by their names, but "
            f"{got or type(content).__name__}"
        )
    return found


def _why(error: Exception) -> str:
    """What is wrong with a file, without torch's advice to run what is in it."""
    text = " ".join(str(error).split())
    code = _CODE.search(text)
    if code is not None:
        return f"it holds {code[1]}, for which code would have to run"
    if "TorchScript" in text:
        return "it is a TorchScript archive, which holds code"
    return "it is cut off, damaged or of another kind"


def load_into(model: nn.Module, state: Mapping[str, Tensor], source: str) -> list[str]:
    """Give a network the weights of a state dict, under the names that it has for them.

    What stands before all names, in the file or in the network, is understood: ``module.`` of several GPUs, ``model.``
    of trainers and of our torchvision networks, ``_orig_mod.`` of torch.compile.

    Args:
        model: the network.
        state: the tensors.
        source: of them, for messages.

    Returns:
        What was understood, a line each.

    Raises:
        ValueError: a tensor is missing, left over, of another shape or kind of number, or not finite.
    """
    own = model.state_dict()
    named, notes = _fitted(state, own, source)
    _add_aliases(named, model, own, source)
    wrong = _differences(named, own)
    if wrong:
        raise InvalidValueError(f"{source} are of another network; {'; '.join(wrong)}")
    _check_kinds(named, own, source)
    bad = [key for key, value in named.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise InvalidValueError(f"{source} hold NaN or infinite values: {_few(bad)}")
    model.load_state_dict(named)
    return notes


def _differences(named: Mapping[str, Tensor], own: Mapping[str, Any]) -> list[str]:
    """What two state dicts do not have in common."""
    both = [key for key in own if key in named and isinstance(own[key], Tensor)]
    found = {
        "missing": [key for key in own if key not in named],
        "left over": [key for key in named if key not in own],
        "of another shape": [
            f"{key} {tuple(named[key].shape)} for {tuple(own[key].shape)}"
            for key in both
            if named[key].shape != own[key].shape
        ],
    }
    return [f"{what}: {_few(keys)}" for what, keys in found.items() if keys]


def _check_kinds(named: Mapping[str, Tensor], own: Mapping[str, Any], source: str) -> None:
    """Refuse what would lose its meaning on the way: codes of quantized weights, imaginary parts, places of zeros."""
    wrong = [
        f"{key} {value.dtype if value.layout is torch.strided else value.layout} for {own[key].dtype}"
        for key, value in named.items()
        if isinstance(own[key], Tensor)
        and (
            value.layout is not torch.strided
            or value.is_quantized
            or value.is_complex() > own[key].is_complex()
            or (own[key].is_floating_point() and not (value.is_floating_point() or value.is_complex()))
        )
    ]
    if wrong:
        raise InvalidValueError(
            f"{source} hold other kinds of numbers: {_few(wrong)}; save them as plain floats where they were made"
        )


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    """The state dict in what a file holds; its tensors only, as some keep numbers beside them."""
    if not isinstance(content, Mapping):
        return None
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    inside = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inside is not None and not tensors:
        return _state_dict(inside)
    return tensors or None


def _fitted(state: Mapping[str, Tensor], own: Mapping[str, Any], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under the network's names, by whichever change of what stands before them fits most."""
    plain = dict(state)
    notes = []
    if any(_COMPILED in key for key in plain) and not any(_COMPILED in key for key in own):
        plain = {key.replace(_COMPILED, ""): value for key, value in plain.items()}
        notes.append(f"{source}: {_COMPILED!r} is taken from their names")
    best, fits, note = plain, len(own.keys() & plain.keys()), ""
    if not fits and (inside := _inside(plain, own, source)) is not None:
        return inside[0], [*notes, inside[1]]
    for changed, told in _changes(plain, own):
        if len(own.keys() & changed.keys()) > fits:
            best, fits, note = changed, len(own.keys() & changed.keys()), f"{source}: {told}"
    return best, [*notes, note] if note else notes


def _changes(plain: Mapping[str, Tensor], own: Mapping[str, Any]) -> Iterator[tuple[dict[str, Tensor], str]]:
    """The tensors with something taken from their names or put before them, and what was done."""
    for prefix in _prefixes(plain):
        changed = {key.removeprefix(prefix): value for key, value in plain.items()}
        if len(changed) == len(plain):
            yield changed, f"{prefix!r} is taken from their names"
    for prefix in _prefixes(own):
        yield {prefix + key: value for key, value in plain.items()}, f"{prefix!r} is put before their names"


def _inside(plain: Mapping[str, Tensor], own: Mapping[str, Any], source: str) -> tuple[dict[str, Tensor], str] | None:
    """The network's tensors under a prefix, where a file has others beside them: weights of a loss, of a metric.

    Raises:
        ValueError: there are several such networks.
    """
    found = {}
    for prefix in _prefixes(plain):
        inner = {key.removeprefix(prefix): value for key, value in plain.items() if key.startswith(prefix)}
        if own.keys() == inner.keys() and len(inner) < len(plain):
            found[prefix] = inner
    if len(found) > 1:
        raise InvalidValueError(
            f"{source} hold {len(found)} such networks, under {', '.join(map(repr, found))}; save the one "
            "that is meant alone"
        )
    for prefix, inner in found.items():
        outside = _few(key for key in plain if not key.startswith(prefix))
        return (
            inner,
            f"{source}: {prefix!r} is taken from their names; what stands under no such one is left out: {outside}",
        )
    return None


def _prefixes(keys: Iterable[str]) -> list[str]:
    """What stands before names, up to a dot; the shortest first, so that no more is changed than need be."""
    found = {key[: at + 1] for key in keys for at, letter in enumerate(key) if letter == "."}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _add_aliases(named: dict[str, Tensor], model: nn.Module, own: Mapping[str, Any], source: str) -> None:
    """Add what a file may leave out: Parameters that are there under another name, counts of batches, no tensors.

    Raises:
        ValueError: what is one Parameter in the network is two in the file.
    """
    by_place: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        by_place.setdefault(id(parameter), []).append(key)
    for keys in by_place.values():
        there = next((key for key in keys if key in named), None)
        for key in keys:
            if there is not None and key in named and not _equal(named[key], named[there]):
                raise InvalidValueError(
                    f"{source} are of another network; {there} and {key} are one Parameter in it, and differ there"
                )
        for key in keys if there is not None else []:
            named.setdefault(key, named[there])  # type: ignore[index]
    for key, value in own.items():
        if key.endswith("num_batches_tracked") or not isinstance(value, Tensor):
            named.setdefault(key, value)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and bool((one == other).all()))


def _few(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_FEW]) + (f" and {len(every) - _FEW} more" if len(every) > _FEW else "")
