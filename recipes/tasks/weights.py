"""Weights that are there already: files of tensors, read without running what is in them, and fitted to a network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

# Under which names training scripts keep a state dict beside other things, the likeliest first.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net", "weights", "params", "ema")
_COMPILED = "_orig_mod."  # what torch.compile puts before names, wherever a compiled module stands
_FEW = 4


def check_file(path: str) -> None:
    """Whether there is such a file.

    Raises:
        FileNotFoundError: not.
    """
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(f"weights: no file {path!r} (in {os.getcwd()}); give the path to it from here")


def read_weights(path: str) -> dict[str, Tensor]:
    """The tensors of a file by their names.

    Args:
        path: a safetensors file, or what torch.save made of a state dict, alone or under a name such as
            ``"state_dict"``; a checkpoint of ``analogsim train`` too.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else, or could only be read by running what is in it.
    """
    check_file(path)
    place = Path(path).expanduser()
    with place.open("rb") as file:
        start = file.read(9)
    if place.suffix == ".safetensors" or start[8:] == b"{":
        from safetensors.torch import load_file

        try:
            return load_file(place)
        except Exception as error:
            raise ValueError(f"weights: {path!r} is no whole safetensors file: {shorten(str(error), 120)}") from error
    try:
        content = torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights: {path!r} is neither a safetensors file nor one of tensors alone, which is all that is read: "
            f"{shorten(str(error), 120)}; save torch.save(model.state_dict(), ...) where it was made"
        ) from error
    found = _state_dict(content)
    if found is None:
        got = f"a dict of {_few(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"weights: {path!r} holds no state dict, a dict of tensors by their names, but {got}")
    return found


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
        ValueError: a tensor is missing, left over, of another shape, or not finite.
    """
    own = model.state_dict()
    named, notes = _fitted(state, own, source)
    _add_aliases(named, model, own)
    wrong = _differences(named, own)
    if wrong:
        raise ValueError(f"{source} are of another network; {'; '.join(wrong)}")
    bad = [key for key, value in named.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ValueError(f"{source} hold NaN or infinite values: {_few(bad)}")
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
    for prefix in _prefixes(plain):
        changed = {key.removeprefix(prefix): value for key, value in plain.items()}
        if len(changed) == len(plain) and len(own.keys() & changed.keys()) > fits:
            best, fits = changed, len(own.keys() & changed.keys())
            note = f"{source}: {prefix!r} is taken from their names"
    for prefix in _prefixes(own):
        changed = {prefix + key: value for key, value in plain.items()}
        if len(own.keys() & changed.keys()) > fits:
            best, fits = changed, len(own.keys() & changed.keys())
            note = f"{source}: {prefix!r} is put before their names"
    return best, [*notes, note] if note else notes


def _prefixes(keys: Iterable[str]) -> list[str]:
    """What stands before names, up to a dot; the shortest first, so that no more is changed than need be."""
    found = {key[: at + 1] for key in keys for at, letter in enumerate(key) if letter == "."}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _add_aliases(named: dict[str, Tensor], model: nn.Module, own: Mapping[str, Any]) -> None:
    """Add what a file may leave out: Parameters that are there under another name, counts of batches, no tensors."""
    by_place: dict[int, list[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        by_place.setdefault(id(parameter), []).append(key)
    for keys in by_place.values():
        there = next((key for key in keys if key in named), None)
        for key in keys if there is not None else []:
            named.setdefault(key, named[there])  # type: ignore[index]
    for key, value in own.items():
        if key.endswith("num_batches_tracked") or not isinstance(value, Tensor):
            named.setdefault(key, value)


def _few(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_FEW]) + (f" and {len(every) - _FEW} more" if len(every) > _FEW else "")
