"""Batches as loaders yield them, and how a network is called with one.

A batch is a pair ``(inputs, target)``, or a mapping as Hugging Face's collators make it, whose ``"labels"`` (or
``"label"``) are the target and all else the inputs. Inputs are one tensor, a tuple of arguments, or a mapping of
keyword arguments. The answer is a tensor, or lies under ``logits`` in what the network returns, or comes first in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]

_LABELS = ("labels", "label")


def moved(value: Any, device: torch.device) -> Any:
    """Tensors and packed sequences, alone or in mappings, tuples and lists, on a torch device; all else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, PackedSequence):
        return cast(Any, value).to(device)  # whose stub knows of dtypes only
    if isinstance(value, Mapping):
        return {key: moved(entry, device) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return tuple(moved(entry, device) for entry in value)
    return value


def size_of(value: Any) -> int:
    """Bytes of the tensors in a value."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, tuple | list) else 0


def split(batch: Any) -> tuple[Inputs, Tensor]:
    """Inputs and target of a batch.

    Raises:
        TypeError: it is neither a pair nor a mapping with labels.
    """
    if isinstance(batch, Mapping):
        name = next((name for name in _LABELS if isinstance(batch.get(name), Tensor)), None)
        if name is not None:
            return {key: value for key, value in batch.items() if key not in _LABELS}, batch[name]
        found = f"a mapping with {', '.join(map(repr, batch))}"
    else:
        if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor):
            inputs = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
            if isinstance(inputs, Tensor | tuple | Mapping):
                return inputs, batch[1]
        found = str(type(batch))
    raise TypeError(
        "evaluate: each batch must be a pair (input, target) with a tensor as target, or a mapping with 'labels', got "
        f"{found}"
    )


def inputs_of(loader: Iterable[Any]) -> Iterator[Inputs]:
    """The inputs that a loader yields: alone, at the head of a tuple, or in a mapping beside labels.

    Raises:
        TypeError: it yields something else.
        ValueError: it yields nothing.
    """
    seen = False
    for batch in loader:
        value = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if isinstance(value, Mapping):
            value = {key: entry for key, entry in value.items() if key not in _LABELS}
        elif isinstance(value, list):
            value = tuple(value)
        if not isinstance(value, Tensor | tuple | Mapping):
            raise TypeError(
                "calibrate: loader must yield inputs (a tensor, or a mapping of keyword arguments) or (inputs, ...), "
                f"got {type(value).__name__}"
            )
        seen = True
        yield value
    if not seen:
        raise ValueError("calibrate: the loader is empty (or can be read only once); give a DataLoader or a list")


def call(model: nn.Module, inputs: Inputs) -> Any:
    """What a network returns for inputs."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def answer(output: Any) -> Tensor:
    """The tensor in what a network returns.

    Raises:
        TypeError: there is none.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(output, Mapping) and found is None:
        found = output.get("out")  # as torchvision's segmentation models call it
    if not isinstance(found, Tensor):
        raise TypeError(
            f"evaluate: the network returned {type(output).__name__}, in which there is no tensor 'logits'; wrap it in "
            "a module that returns a tensor"
        )
    return found


def loss_of(output: Any) -> Tensor:
    """The loss in what a network returns that was given labels.

    Raises:
        TypeError: there is none.
    """
    found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(found, Tensor):
        raise TypeError(f"evaluate: the network returned {type(output).__name__} without a 'loss'")
    return found


# Data up to this size is read once and kept: every chip then sees the same samples, and decoding is paid once.
_KEEP_BYTES = 2**30


def read_once(loader: Iterable[Any]) -> Iterable[Any]:
    """What a loader yields, as a list; the loader itself where that is more than is kept."""
    read, size = [], 0
    for batch in loader:
        read.append(batch)
        size += size_of(batch)
        if size > _KEEP_BYTES:
            return loader
    return read


class Data:
    """A loader's inputs and targets on a torch device: read once and kept if small, read again for every pass if not.

    Args:
        loader: yields batches.
        device: where they go.
    """

    def __init__(self, loader: Iterable[Any], device: torch.device) -> None:
        if not isinstance(loader, Iterable):
            raise TypeError(f"evaluate: loader must yield (input, target) batches, got {type(loader).__name__}")
        self._loader = loader
        self.device = device
        self._kept: list[tuple[Inputs, Tensor]] | None = []
        size = 0
        for batch in self._read():
            size += size_of(batch)
            if size > _KEEP_BYTES:
                self._kept = None
                break
            self._kept.append(batch)
        if self._kept == []:
            raise ValueError("evaluate: the loader is empty; give it at least one batch")
        if self._kept is None and isinstance(loader, Iterator):
            raise ValueError("evaluate: the loader can be read only once; give a DataLoader or a list of batches")

    def _read(self) -> Iterator[tuple[Inputs, Tensor]]:
        for batch in self._loader:
            inputs, target = split(batch)
            if not target.ndim or not len(target):
                raise ValueError(
                    "evaluate: each batch needs samples, and its target a first axis for them, got a target of shape "
                    f"{tuple(target.shape)}"
                )
            yield moved(inputs, self.device), target.to(self.device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self._kept is None else {**self.__dict__, "_loader": ()}

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        return self._read() if self._kept is None else iter(self._kept)
