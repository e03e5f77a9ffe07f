"""Adapters in files: by themselves, and beside a chip; safetensors, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from analogsim.chip.adapters.attached import Adapters, adapters_of, held_adapters
from analogsim.crossbar.adapter import Adapter
from analogsim.errors import InvalidValueError, MissingKeyError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.utils.checks import check_path
from analogsim.utils.tensor_files import read_tensors, write_tensors
from analogsim.utils.text import nearest

_FORMAT = "analogsim-adapters-1"
_PARTS = ("scale", "offset", "down", "up", "strength")


def tensors_of(name: str, adapter: Adapter) -> dict[str, Tensor]:
    """An adapter's numbers as a file holds them, by keys that begin with the name of its matrix."""
    return {f"{name}/adapter.{part}": value.detach().cpu().clone() for part, value in adapter.tensors.items()}


def facts_of(adapter: Adapter) -> dict[str, Any]:
    """What a file says of an adapter beside its numbers."""
    return {"ages": list(adapter.ages), "seed": adapter.seed}


def read_adapter(matrix: AnalogMatrix, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Adapter:
    """An adapter from what a file holds.

    Args:
        matrix: that it is for.
        facts: see `facts_of`.
        tensors: see `tensors_of`, without the name of the matrix.

    Raises:
        KeyError: something is missing, or of another shape or kind than belongs to this matrix.
    """
    state = matrix.analog
    held = {part: tensors[f"adapter.{part}"] for part in _PARTS if f"adapter.{part}" in tensors}
    ages, outputs = tuple(float(age) for age in facts["ages"]), state.shape[0]
    sets, rank = max(1, len(ages)), held["up"].shape[-1] if "up" in held else 0
    wanted: dict[str, tuple[int, ...]] = {"scale": (sets, outputs), "offset": (sets, outputs)}
    if rank:
        wanted |= {"down": (rank, *state.shape[1:]), "up": (outputs, rank)}
    if rank and ages:
        wanted["strength"] = (sets, rank)
    if {part: tuple(value.shape) for part, value in held.items()} != wanted:
        raise MissingKeyError("its adapter")
    if not all(value.is_floating_point() and value.isfinite().all() for value in held.values()):
        raise MissingKeyError("finite numbers in its adapter")
    place = matrix.torch_device
    placed = {part: value.to(place).requires_grad_() for part, value in held.items()}
    return Adapter(**placed, ages=ages, seed=facts["seed"])


def save_adapters(analog: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the adapters of a twin to a file, without a chip. Weights are saved apart; `save_chip` keeps both together.

    Args:
        analog: the twin, with adapters.
        path: the file (safetensors); written whole or not at all.

    Raises:
        OSError: the file cannot be written.
        ValueError: the twin has no adapters.
    """
    held = held_adapters(analog, "save_adapters")
    tensors = {key: value for name, adapter in held.items() for key, value in tensors_of(name, adapter).items()}
    told = {name: facts_of(adapter) for name, adapter in held.items()}
    about = {"format": _FORMAT, "matrices": json.dumps(told)}
    write_tensors(path, tensors, about, "save_adapters")


def load_adapters(analog: nn.Module, path: str | os.PathLike[str]) -> Adapters:
    """Put saved adapters on a twin, in the place of those that it has.

    Args:
        analog: a twin of the same network.
        path: a file that `save_adapters` wrote.

    Returns:
        What they take of the digital part.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no adapters, is damaged, or belongs to another network. The twin is as before then.
    """
    told = f"load_adapters: {check_path(path, 'load_adapters')!r}"
    everything, metadata = read_tensors(path, "load_adapters", "holds no adapters")
    if metadata.get("format") != _FORMAT:
        raise InvalidValueError(f"{told} is a safetensors file, but none of adapters ({_FORMAT})")
    try:
        entries = json.loads(metadata["matrices"])
    except (KeyError, json.JSONDecodeError) as error:
        raise InvalidValueError(f"{told} is damaged: its list of matrices cannot be read") from error
    matrices = {matrix.analog.name: matrix for matrix in matrices_of(analog)}
    odd = sorted(entries.keys() - matrices.keys())
    if odd:
        near = nearest(odd[0], matrices)
        raise InvalidValueError(f"{told} belongs to another network: {odd[0]!r} is no analog matrix of this one{near}")
    found = {}
    for name, facts in entries.items():
        try:
            found[name] = read_adapter(matrices[name], facts, tensors_under(name, everything))
        except KeyError as error:
            raise InvalidValueError(
                f"{told} is damaged or of another network: matrix {name!r} lacks {error}"
            ) from error
    for name, matrix in matrices.items():
        matrix.analog.adapter = found.get(name)
    return adapters_of(analog)


def tensors_under(name: str, everything: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one matrix in a file, without its name."""
    parted: Iterable[tuple[tuple[str, str, str], Tensor]] = (
        (key.rpartition("/"), value) for key, value in everything.items()
    )
    return {last: value for (head, _, last), value in parted if head == name}
