"""Batches as loaders yield them, and how a network is called with one.

A batch is a pair ``(inputs, target)``, or a mapping as Hugging Face's collators make it, whose ``"labels"`` (or
``"label"``) are the target and all else the inputs. Inputs are one tensor, a tuple of arguments, or a mapping of
keyword arguments. The target is whatever the metric takes: a tensor, or texts, mappings, lists of them.

Pictures of any size in a list, beside a list with a mapping for each, as detection has them, are one argument, and so
are texts in a list; any other list or tuple holds the arguments, and ``([one, two],)`` says that a list is one.

The answer is a tensor, or lies under ``logits`` in what the network returns, or comes first in it; where there is no
tensor in these places it is all that the network returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.torch_private import tree_leaves

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
    if isinstance(value, list):
        return [moved(entry, device) for entry in value]
    if isinstance(value, tuple):
        entries = [moved(entry, device) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    return value


def size_of(value: Any) -> int:
    """Bytes of the tensors and texts in a value, as far as they can be counted."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, tuple | list) else 0


def split(batch: Any) -> tuple[Inputs, Any]:
    """Inputs and target of a batch.

    Raises:
        TypeError: it is neither a pair nor a mapping with labels.
    """
    if isinstance(batch, Mapping):
        name = next((name for name in _LABELS if batch.get(name) is not None), None)
        if name is not None:
            return {key: value for key, value in batch.items() if key not in _LABELS}, batch[name]
        found = f"a mapping with {', '.join(map(repr, batch))}"
    else:
        if isinstance(batch, tuple | list) and len(batch) == 2:
            inputs = _arguments(batch[0], batch[1])
            if isinstance(inputs, Tensor | tuple | Mapping):
                return inputs, batch[1]
        found = str(type(batch))
    raise InvalidTypeError(
        "evaluate: each batch must be a pair (input, target), where the input is a tensor, a tuple of arguments or a "
        f"mapping of them, or a mapping with 'labels', got {found}"
    )


def _arguments(inputs: Any, target: Any) -> Any:
    """What a loader yields before the target, with pictures or texts in a list as one argument."""
    if not isinstance(inputs, tuple | list) or isinstance(inputs, PackedSequence):
        return inputs
    texts = bool(inputs) and all(isinstance(each, str) for each in inputs)
    return ([*inputs],) if texts or _are_pictures(inputs, target) else _as_tuple(inputs)


def _as_tuple(inputs: tuple[Any, ...] | list[Any]) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else tuple(inputs)


def _are_pictures(inputs: Any, target: Any) -> bool:
    """Whether these are pictures ``(channels, height, width)``, each with a mapping in the target."""
    if not isinstance(target, tuple | list) or len(target) != len(inputs):
        return False
    each_described = all(isinstance(each, Mapping) for each in target)
    return each_described and all(isinstance(each, Tensor) and each.ndim == 3 for each in inputs)


def samples_in(inputs: Inputs, target: Any) -> int:
    """How many samples a batch has.

    Of what there may be in its target (see `sample_counts`) that which the first axis of the inputs has, too; otherwise
    the likeliest; and that of the inputs where the target tells nothing.

    Raises:
        ValueError: none, or neither tells.
    """
    counts, first = sample_counts(target), _first_axis(inputs)
    scalar = isinstance(target, Tensor) and not target.ndim
    found = 0 if scalar else first if first in counts or not counts else counts[0]
    if not found:
        shape = f" of shape {tuple(target.shape)}" if isinstance(target, Tensor) else f", {describe(target)}"
        raise InvalidValueError(
            f"evaluate: each batch needs samples, and its target a first axis for them, got a target{shape}"
        )
    return found


def _first_axis(inputs: Any) -> int | None:
    """Of the first argument; None where it has none."""
    if isinstance(inputs, PackedSequence):
        return int(inputs.batch_sizes[0])
    if isinstance(inputs, Tensor):
        return inputs.size(0) if inputs.ndim else None
    if isinstance(inputs, Mapping):
        return _first_axis(next(iter(inputs.values()), None))
    if isinstance(inputs, tuple):
        return _first_axis(inputs[0]) if inputs else None
    return len(inputs) if isinstance(inputs, list) else None


def sample_counts(target: Any) -> tuple[int, ...]:
    """How many samples a target may have, the likeliest first; nothing where it does not tell.

    A list is one of samples, or, where all in it are tensors of one length, the parts of a target of several. A mapping
    holds parts.
    """
    if isinstance(target, Tensor):
        return (target.size(0),) if target.ndim else ()
    if isinstance(target, Mapping):
        return tuple(dict.fromkeys(count for part in target.values() for count in sample_counts(part)[:1]))
    if isinstance(target, tuple | list) and target and all(isinstance(part, Tensor) and part.ndim for part in target):
        lengths = {len(part) for part in target}
        return tuple(dict.fromkeys((*lengths, len(target)))) if len(lengths) == 1 else (len(target),)
    if isinstance(target, str):
        return (1,)
    try:
        return (len(target),)
    except TypeError:
        return ()


def describe(value: Any) -> str:
    """What a value is, in words for an error: a tensor's shape and type, how many of what a list holds."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(repr, value))}" if value else "an empty mapping"
    if isinstance(value, tuple | list):
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in value))
        return f"a {type(value).__name__} of {len(value)} {kinds}".rstrip()
    return f"a {type(value).__name__}"


def inputs_of(loader: Iterable[Any], action: str = "calibrate") -> Iterator[Inputs]:
    """The inputs that a loader yields: alone, at the head of a tuple, or in a mapping beside labels.

    A tensor, or a mapping of keyword arguments, is one batch.

    Args:
        loader: the data.
        action: who asks, for errors.

    Raises:
        TypeError: it yields something else.
        ValueError: it yields nothing.
    """
    seen = False
    for batch in batches_of(loader):
        value: Any = batch
        if isinstance(batch, tuple | list) and batch and not isinstance(batch, PackedSequence):
            value = _arguments(batch[0], batch[1] if len(batch) == 2 else None)
        if isinstance(value, Mapping):
            value = {key: entry for key, entry in value.items() if key not in _LABELS}
        if not isinstance(value, Tensor | tuple | Mapping):
            raise InvalidTypeError(
                f"{action}: loader must yield inputs (a tensor, or a mapping of keyword arguments) or (inputs, ...), "
                f"got {type(value).__name__}"
            )
        seen = True
        yield value
    if not seen:
        raise InvalidValueError(
            f"{action}: the loader is empty (or can be read only once); give a DataLoader or a list"
        )


def is_empty(inputs: Any) -> bool:
    """Whether inputs hold tensors, and no numbers in any of them."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return bool(tensors) and not any(tensor.numel() for tensor in tensors)


def call(model: nn.Module, inputs: Inputs) -> Any:
    """What a network returns for inputs."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    several = isinstance(inputs, tuple) and not isinstance(inputs, PackedSequence)
    return model(*inputs) if several else model(inputs)


def answer(output: Any) -> Any:
    """What a network answers: the tensor in what it returns, or all of it where there is none in the usual places.

    Args:
        output: a tensor; a mapping or an object with ``logits``, or ``out``; a tuple or list that begins with a tensor;
            or texts, lists of mappings, mappings of other names, as they are.

    Raises:
        TypeError: it is nothing, or something that nobody here can look into.
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(output, Mapping) and found is None:
        found = output.get("out")  # as torchvision's segmentation models call it
    if isinstance(found, Tensor):
        return found
    if isinstance(output, str) or (isinstance(output, tuple | list) and output):
        return output
    if isinstance(output, Mapping) and any(name != "loss" for name in output):
        return output
    raise InvalidTypeError(
        f"evaluate: the network returned {type(output).__name__}, in which there is no tensor 'logits'; wrap it in "
        "a module that returns a tensor, or give analogsim.evaluation.Metric(..., reads='output') and a transform of it"
    )


def loss_of(output: Any) -> Tensor:
    """The loss in what a network returns that was given labels.

    Raises:
        TypeError: there is none.
    """
    found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(found, Tensor):
        raise InvalidTypeError(f"evaluate: the network returned {type(output).__name__} without a 'loss'")
    return found


def refuse_empty(inputs: Any) -> None:
    """Raise ValueError for keyword arguments of which there are none."""
    if isinstance(inputs, Mapping) and not inputs:
        raise InvalidValueError("inputs: a mapping of keyword arguments needs some, got {}")


def batches_of(inputs: Any, *, kept: bool = False) -> Iterable[Any]:
    """Inputs as users give them by hand, as batches.

    Args:
        inputs: one batch, a tensor or a mapping of keyword arguments; or whatever yields batches, see `inputs_of`.
        kept: whether what can be read only once is kept, so that it can be read again.

    Raises:
        TypeError: it yields nothing.
        ValueError: a mapping without arguments.
    """
    refuse_empty(inputs)
    if isinstance(inputs, Tensor | Mapping | PackedSequence):
        return [inputs]
    if not isinstance(inputs, Iterable):
        raise InvalidTypeError(
            "inputs: give a tensor (one batch), a mapping of keyword arguments, or what yields batches, got "
            f"{describe(inputs)}"
        )
    return list(inputs) if kept and isinstance(inputs, Iterator) else inputs


# Data up to this size is read once and kept: every chip then sees the same samples, and decoding is paid once.
_KEEP_BYTES = 2**30


def read_once(loader: Iterable[Any]) -> Iterable[Any]:
    """What a loader yields, as a list; the loader itself where that is more than is kept."""
    read, size = [], 0
    for batch in batches_of(loader):
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
            raise InvalidTypeError(f"evaluate: loader must yield (input, target) batches, got {type(loader).__name__}")
        self._loader = loader
        self.device = device
        self._kept: list[tuple[Inputs, Any]] | None = []
        size = 0
        for batch in self._read():
            size += size_of(batch)
            if size > _KEEP_BYTES:
                self._kept = None
                break
            self._kept.append(batch)
        if self._kept == []:
            raise InvalidValueError("evaluate: the loader is empty; give it at least one batch")
        if self._kept is None and isinstance(loader, Iterator):
            raise InvalidValueError(
                "evaluate: the loader can be read only once; give a DataLoader or a list of batches"
            )

    @property
    def is_kept(self) -> bool:
        """Whether they are in memory."""
        return self._kept is not None

    @property
    def loader(self) -> Iterable[Any]:
        """What they are read from; nothing where they are kept and came in a worker's task."""
        return self._loader

    def _read(self) -> Iterator[tuple[Inputs, Any]]:
        for batch in self._loader:
            inputs, target = split(batch)
            samples_in(inputs, target)  # which says so if there are none
            yield moved(inputs, self.device), moved(target, self.device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if self._kept is None else {**self.__dict__, "_loader": ()}

    def __iter__(self) -> Iterator[tuple[Inputs, Any]]:
        return self._read() if self._kept is None else iter(self._kept)
