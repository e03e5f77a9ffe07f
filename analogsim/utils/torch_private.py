"""Members of torch without a promise: what we use of them, in one place, each under a name that says what it gives.

A name with an underscore, in torch or in one of its objects, may change with any release. All were checked on torch
2.11.0, 2.14.1 and 2.15.0; `tests/whole/test_private_members.py` asks each for what we rely on, and fails with its name.

What is called in each forward is torch's own function under another name, not a function around it. ``torch._dynamo``
takes seconds to import: it is touched only where something is compiled anyway.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch._compile import _disable_dynamo
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

from analogsim.errors import OperationError

CHECKED = ("2.11.0", "2.14.1", "2.15.0")

F = TypeVar("F", bound=Callable[..., Any])

SavedTensorsHooks = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]

transforms_are_active: Callable[[], bool] = torch._C._are_functorch_transforms_active
"""Whether a transform of torch.func (vmap, grad, jvp, functionalize) is around what runs now."""

is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor
"""Whether a tensor is one of a transform of torch.func, which has no rule for some operations in place."""

is_batched: Callable[[Tensor], bool] = torch._C._functorch.is_batchedtensor
"""Whether a tensor is many, over which ``torch.func.vmap`` maps."""

saved_tensors_hooks_in_force = cast(
    Callable[[bool], SavedTensorsHooks | None], torch._C._autograd._top_saved_tensors_default_hooks
)
"""The innermost ``torch.autograd.graph.saved_tensors_hooks``, None without; of True, while tracing too."""

tracing_state = cast(Callable[[], object], torch._C._get_tracing_state)
"""What ``torch.jit.trace`` holds while it looks on; None without."""

trilinear: Any = torch.ops.aten._trilinear
"""The operation behind ``nn.Bilinear``."""

Operation: type = torch._ops.OpOverload
"""What an exported graph calls: one of torch's own operations, in one of its forms."""

grouped_product: Any = torch.ops.aten._grouped_mm
"""The operation behind ``torch.nn.functional.grouped_mm``, products of the rows of one factor with many matrices."""

tree_leaves: Callable[[Any], list[Any]] = _pytree.tree_leaves
"""What lies in tuples, lists and dictionaries, in order."""

tree_map: Callable[..., Any] = _pytree.tree_map
"""The same structure of what a function makes of each leaf."""

tree_flatten: Callable[[Any], tuple[list[Any], Any]] = _pytree.tree_flatten
"""The leaves, and the structure that they lay in."""

tree_unflatten: Callable[[list[Any], Any], Any] = _pytree.tree_unflatten
"""Leaves in a structure again."""

disable_dynamo = cast(Callable[[Callable[..., Any]], Callable[..., Any]], _disable_dynamo)
"""``torch.compiler.disable`` for a function, without importing the compiler with it."""

BatchNorm = _BatchNorm
"""What ``nn.BatchNorm1d`` to ``3d``, lazy ones and ``nn.SyncBatchNorm`` have in common."""

canonical_mask: Callable[..., Tensor | None] = functional._canonical_mask
"""A mask of `nn.MultiheadAttention` as numbers to add, with torch's errors where it is odd."""

dtype_of: Callable[[Tensor | None], torch.dtype | None] = functional._none_or_dtype
"""The dtype of what is given, as `canonical_mask` takes it; None of None."""


@functools.cache
def unfolded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `torch.nn.functional` that hands itself to modes as a whole, as one whose parts they see."""
    own = cast(FunctionType, function)
    parts = {**own.__globals__, "has_torch_function": lambda tensors: False}
    made = FunctionType(own.__code__, parts, own.__name__, own.__defaults__, own.__closure__)
    made.__kwdefaults__ = own.__kwdefaults__
    return made


GENERATOR_WORDS = 624
"""So many words of 32 bits are the state of torch's generator of the CPU, the Mersenne Twister."""


@functools.cache
def _fresh_generator() -> NDArray[np.int64]:
    """What ``get_state`` gives after a seed: that seed, two flags, a place, the words, and what normal numbers left."""
    state = torch.Generator("cpu").manual_seed(5489).get_state().numpy().view(np.int64)
    if not np.array_equal(state[[0, 3, 4, 5, GENERATOR_WORDS + 2]], (5489, 5489, 1301868182, 2938499221, 79981964)):
        raise OperationError(
            f"torch {torch.__version__} lays out the state of its generator in another way than torch "
            f"{' and '.join(CHECKED)}; use one of these"
        )
    return state


def fill_generator(generator: torch.Generator, words: NDArray[np.uint32]) -> torch.Generator:
    """Give torch's generator of the CPU all of its state; ``manual_seed`` takes 32 bits, and forgets others silently.

    Args:
        generator: of the CPU.
        words: `GENERATOR_WORDS` of them, not all zero.

    Raises:
        RuntimeError: this torch has a generator of another layout.
    """
    state = _fresh_generator().copy()
    state[3 : 3 + GENERATOR_WORDS] = words
    generator.set_state(torch.from_numpy(state.view(np.uint8)))
    return generator


def version_of(tensor: Tensor) -> int:
    """The counter that rises with each write into a tensor, or into another one over the same memory."""
    return tensor._version


def storage_key(tensor: Tensor) -> int:
    """The address of the object that holds a tensor's memory, which views share."""
    return int(tensor.untyped_storage()._cdata)


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The dictionary itself that holds a module's own Parameters: what is changed in it changes in the module."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """The dictionary itself that holds a module's own buffers."""
    return module._buffers


def put_buffers(module: nn.Module, buffers: dict[str, Tensor | None]) -> None:
    """Let a module hold its buffers in another dictionary."""
    module.__dict__["_buffers"] = buffers


def forward_pre_hooks(module: nn.Module) -> dict[int, Callable[..., Any]]:
    """The dictionary itself of the hooks that a module calls before its forward."""
    return module._forward_pre_hooks


def forward_hooks(module: nn.Module) -> dict[int, Callable[..., Any]]:
    """The hooks that a module calls after its forward."""
    return module._forward_hooks


def has_compiled_call(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called, so that calls of the module go to compiled code."""
    return module._compiled_call_impl is not None


def call_while_tracing(method: F) -> F:
    """Let ``torch.compile`` call a method itself, once for each graph, and take its answer as a constant.

    As ``torch.compiler.assume_constant_result``, without importing the compiler. The object may hold anything, and the
    method may change it: it is plain Python, of which nothing comes into the graph.
    """
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return method


def without_compiled_call(state: Mapping[str, Any]) -> dict[str, Any]:
    """A module's attributes but for the compiled call that ``module.compile()`` leaves among them."""
    return {name: value for name, value in state.items() if name != "_compiled_call_impl"}


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile(module)`` wraps; itself if it is not compiled."""
    return cast(nn.Module, getattr(module, "_orig_mod", module))


def mark_dynamic(tensor: Tensor, axis: int) -> None:
    """Compile what takes a tensor for any size along an axis, where that is possible."""
    torch._dynamo.maybe_mark_dynamic(tensor, axis)


def compiles_recurrent_layers() -> bool:
    """Whether ``torch.compile`` was told to look into recurrent layers, which it leaves alone by itself."""
    return bool(torch._dynamo.config.allow_rnn)


def compiler_looks_on() -> bool:
    """Whether ``torch.compile`` takes up what is called now, code that runs as it is between its graphs included."""
    return get_eval_frame_callback() is not None


def is_exporting() -> bool:
    """Whether ``torch.export`` traces; ``torch.compiler.is_exporting()`` is True in all compiled code of torch 2.11."""
    return torch.compiler._is_exporting_flag


def convolve(layer: nn.Module, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The answer of a convolution with another weight, every way of padding included."""
    return cast(Tensor, cast(nn.Conv2d, layer)._conv_forward(input, weight, bias))


def output_padding(layer: nn.Module, input: Tensor, output_size: list[int], axes: int) -> list[int]:
    """What a transposed convolution adds at one end of each axis to answer in a size; an error if it cannot."""
    own = cast(Any, layer)
    padding = own._output_padding(input, output_size, own.stride, own.padding, own.kernel_size, axes, own.dilation)
    return cast("list[int]", padding)


def has_joint_projection(attention: nn.MultiheadAttention) -> bool:
    """Whether queries, keys and values are of one size, so that their projections lie in one Parameter."""
    return bool(attention._qkv_same_embed_dim)


def flat_weight_names(layer: nn.RNNBase) -> list[str]:
    """The names of a recurrent layer's Parameters, in the order in which torch's kernels take them."""
    return layer._flat_weights_names


def update_flat_weights(layer: nn.RNNBase) -> None:
    """Let a recurrent layer look its Parameters up anew, as torch's forward does first of all."""
    layer._update_flat_weights()


def compact(layer: nn.RNNBase, weights: list[Tensor]) -> None:
    """Move the memory of a recurrent layer's weights into one piece, as cuDNN wants it; the tensors stay the same."""
    # torch's method moves what it finds in the attribute.
    nn.RNNBase.flatten_parameters(cast(nn.RNNBase, SimpleNamespace(**{**vars(layer), "_flat_weights": weights})))
