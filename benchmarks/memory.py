"""What a training step keeps for its backward pass: bytes, counted from what autograd saves."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from analogsim import Gaussian
from analogsim.utils.text import table
from benchmarks.harness import peer_methods
from benchmarks.harness.methods import RELATIVE, Contender, HandWritten, Method, Twin, relative
from benchmarks.harness.networks import Case


class _Saved:
    """A tensor that a graph saved, as long as the graph keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        # With its graph, the result of a function that saves it would keep itself.
        self.tensor = tensor.detach()


def kept(step: Callable[[], object], apart: Iterable[Tensor] = ()) -> int:
    """Bytes of the tensors that are saved for backward when it begins.

    A storage that several tensors share counts once and whole, the batch counts where a graph saved it. What a function
    hides from autograd in attributes of its own is not seen.

    Args:
        step: a forward and a backward.
        apart: tensors whose storages do not count, as they are there in any case.

    Raises:
        ValueError: the backward used nothing that the forward saved.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in apart}
    graph: weakref.WeakSet[_Saved] = weakref.WeakSet()
    counts: list[int] = []

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        graph.add(saved)
        return saved

    def unpack(saved: _Saved) -> Tensor:
        if not counts:  # backward begins: nothing is released yet
            storages = (each.tensor.untyped_storage() for each in graph)
            sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
            counts.append(sum(size for place, size in sizes.items() if place not in known))
        return saved.tensor

    with saved_tensors_hooks(pack, unpack):
        step()
    if not counts:
        raise ValueError("kept: the step used nothing that was saved for backward; give it a forward and a backward")
    return counts[0]


def _stays(method: Method) -> list[Tensor]:
    """What is there between steps as well: Parameters, trained ranges, buffers such as those of batch norm."""
    trained = [tensor for group in method.optimizer.param_groups for tensor in group["params"]]
    return [*trained, *method.model.buffers()]


def weight_bytes(model: nn.Module) -> int:
    """Bytes of one copy of the weights that a chip would hold."""
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return sum(weight.numel() * weight.element_size() for weight in weights)


def contenders(inputs: Tensor) -> tuple[Contender, ...]:
    """The methods, those of aihwkit-lightning where it is installed; ranges start from ``inputs``."""
    return (
        Contender("plain", Method),
        Contender("hand-written, relative", lambda model: HandWritten(model, relative)),
        *peer_methods.ours(inputs),
        Contender("convert, gaussian, recompute", lambda model: Twin(model, Gaussian(RELATIVE), recompute=True)),
        Contender(
            "convert, 8 bits, recompute",
            lambda model: peer_methods.Behind(model, peer_methods.CONVERTERS, inputs, recompute=True),
        ),
        Contender("convert, pcm", lambda model: Twin(model, "pcm")),
        *(peer_methods.theirs(inputs) if peer_methods.available() else ()),
    )


def run(case: Case, device: torch.device, *, say: Callable[[str], object] = print) -> list[dict[str, Any]]:
    """Count what each method keeps for the backward of one network; print the table and return its rows for JSON."""
    inputs, labels = case.data(device)
    copy = weight_bytes(case.model(device))
    records: list[dict[str, Any]] = []
    rows = []
    for contender in contenders(inputs):
        method = contender.make(case.model(device))
        found = kept(partial(method.backward, inputs, labels), _stays(method))
        plain = records[0]["bytes"] if records else found
        record = {
            "benchmark": "memory",
            "model": case.name,
            "batch": case.batch,
            "method": contender.name,
            "bytes": found,
            "to_plain": found / plain,
            "copies_of_the_weights_over_plain": (found - plain) / copy,
        }
        records.append(record)
        over = f"{(found - plain) / copy:+.2f}"
        rows.append((contender.name, f"{found / 1e6:,.2f} MB", f"{found / plain:.2f}x", over))
    say(f"Kept for the backward pass of {case.name}, batch {case.batch}, on {device.type}\n")
    say(table(("method", "kept", "to plain", "over plain, in copies of the weights"), rows) + "\n")
    say(f"One copy of the weights is {copy / 1e6:,.2f} MB. Parameters and buffers do not count.\n")
    return records
