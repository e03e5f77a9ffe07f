"""Draws of eager training by compiled code: one kernel for each device model, whatever the shapes; see `pairs`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import cast

import torch
from torch import Tensor, nn

from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel
from analogsim.draws.pairs import Pairs, come_in_pairs, draw_pairs, largest_is_simple
from analogsim.errors import OperationError
from analogsim.mapping.layout import Layout
from analogsim.noise.counter_based import row_keys
from analogsim.noise.sources import Scale, TrainingNoise, noise_is_compiled
from analogsim.utils.torch_private import mark_dynamic

KernelOutput = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
"""The fields of `Pairs`, as a kernel hands them back."""
Kernel = Callable[[Tensor, Tensor | None, Tensor, Tensor, Tensor], KernelOutput]


def draw_compiled(
    weight: Tensor,
    device: DeviceModel,
    scale: Scale,
    time: Callable[[], Tensor],
    layout: Layout | None,
    crossbar: Crossbar,
    noise: TrainingNoise,
) -> Pairs | None:
    """A draw of a weight ``(out, ...)`` by compiled code, shaped like it and detached; None where eager code makes it.

    Args:
        weight: as it lies on the crossbar.
        device: the device model.
        scale: how much of its error is applied, not 0.
        time: draws seconds after programming; asked only if the device drifts.
        layout: the blocks in which the weight lies.
        crossbar: their wires and converters.
        noise: where keys come from.

    Raises:
        RuntimeError: torch cannot compile the device.
    """
    if not noise_is_compiled(weight) or not come_in_pairs(device, crossbar):
        return None
    if type(weight) not in (Tensor, nn.Parameter) or weight.ndim < 2 or not weight.numel():
        return None
    # The order of what lies in a row decides nothing, so memory may have its own.
    order = [0, *sorted(range(1, weight.ndim), key=weight.stride, reverse=True)]
    turned = weight.detach().permute(order)
    back = [order.index(axis) for axis in range(weight.ndim)]

    def shaped(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.view(turned.shape).permute(back)

    with torch.no_grad():
        top, rows_of_top = None, None
        if not largest_is_simple(device, layout):
            top = device.largest(weight.detach(), layout)
            rows_of_top = top.expand_as(weight).permute(order).flatten(1) if top.ndim else top
        factor = scale if isinstance(scale, Tensor) else torch.full((), scale, device=weight.device)
        t = time() if device.drifts else torch.zeros((), device=weight.device)
        try:
            kernel = kernel_of(device, weight.dtype, top is not None)
            drawn = kernel(
                turned.contiguous().flatten(1), rows_of_top, factor, t, noise.row_keys(len(weight), weight.device)
            )
        except Exception as error:
            raise OperationError(
                f"use_compiled_noise: torch.compile failed on device {device.name!r}; leave the call out, or undo it "
                f"with use_compiled_noise(False): {error}"
            ) from error
    noisy, largest, gain, variance, within = drawn
    pairs = Pairs(noisy, largest if top is None else top, gain, shaped(variance), shaped(within))
    return replace(pairs, noisy=noisy.view(turned.shape).permute(back))


def compile_kernel(kernel: FunctionType) -> Kernel:
    """A kernel in machine code, apart from those of other devices."""
    # torch.compile counts what it compiled for a code object, all devices together, and gives up after a few. What the
    # code reads besides its arguments is its own device, so that only the arguments need to be checked in each call.
    own = FunctionType(kernel.__code__.replace(), kernel.__globals__, kernel.__name__, None, kernel.__closure__)
    return torch.compile(own, fullgraph=True, options={"guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe})


@functools.lru_cache(maxsize=64)
def kernel_of(device: DeviceModel, dtype: torch.dtype, given: bool) -> Kernel:
    """The kernel of a device.

    Args:
        device: the device model; equal ones share a kernel.
        dtype: of the weights.
        given: whether the kernel is told which weight is on ``g_max``.
    """

    def kernel(clean: Tensor, largest: Tensor | None, scale: Tensor, t: Tensor, keys: Tensor) -> KernelOutput:
        values = clean.float() if clean.itemsize < 4 else clean  # as noisy_weight.in_compute_dtype
        drawn = draw_pairs(values, largest, device, scale, t, keys)
        return drawn.noisy.to(clean.dtype), drawn.largest, drawn.gain, drawn.variance, drawn.within

    device.prepare()
    compiled = compile_kernel(cast(FunctionType, kernel))
    # Made for any shape, and for one that is worth all threads.
    example = torch.linspace(-1, 1, 2**20, dtype=dtype, device="cpu").view(2**10, 2**10)
    keys = row_keys(2**10, example.device, torch.Generator())
    scale, t = torch.ones(2, device="cpu").unbind()  # two tensors, or the code is made for one that is both
    sized = [example, keys] if not given else [example, keys, example.abs()]
    for tensor in sized:
        mark_dynamic(tensor, 0)
    for tensor in (example, *sized[2:]):
        mark_dynamic(tensor, 1)
    compiled(example, sized[2] if given else None, scale, t, keys)
    return compiled
