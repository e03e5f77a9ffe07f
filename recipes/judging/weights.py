"""Trained weights from a file, read without running anything that is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

_INSIDE = ("state_dict", "model_state_dict", "model")
# What wrappers put before all names: nn.DataParallel, torch.compile, Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in a file: safetensors, or what `torch.save` wrote of tensors alone or beside other plain values.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, holds code, or no state dict.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights: no file {name!r}")
    content: Any
    try:
        if name.endswith(".safetensors"):
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of damage, every format has errors of its own
        raise ValueError(
            f"weights: {name!r} cannot be read as tensors alone: {shorten(str(error), 150)}; save the state dict of "
            "the network: torch.save(model.state_dict(), FILE)"
        ) from error
    for key in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    found = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found:
        raise ValueError(f"weights: {name!r} holds no state dict; save one: torch.save(model.state_dict(), FILE)")
    return found


def put_weights(model: nn.Module, state: Mapping[str, Tensor], source: str, tell: Callable[[str], None]) -> None:
    """Give a network weights whose names may have a prefix that a wrapper put there.

    Args:
        model: the network.
        state: its state dict.
        source: where it comes from, for messages.
        tell: told of a prefix that was left out.

    Raises:
        ValueError: they belong to another architecture.
    """
    known, given = set(model.state_dict()), dict(state)
    for prefix in _PREFIXES:
        if known.isdisjoint(given) and given and all(key.startswith(prefix) for key in given):
            given = {key.removeprefix(prefix): value for key, value in given.items()}
            tell(f"weights: {prefix!r} before all names in {source} is left out")
    try:
        model.load_state_dict(given)
    except RuntimeError as error:
        raise ValueError(f"weights: {source} belong to another architecture: {shorten(str(error), 400)}") from error
