"""Module trees: the names in them, and a second tree over the same tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from analogsim.errors import InvalidTypeError
from analogsim.utils.copying import Contents, Copier
from analogsim.utils.torch_private import own_buffers, own_parameters, without_compiled_call

M = TypeVar("M", bound=nn.Module)


def names_of(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Every module once, with all the names it goes by; the first is the one we call it."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def title_of(name: str) -> str:
    """A module's name for messages."""
    return repr(name) if name else "the model itself"


def find_unregistered(contents: Contents, names: Mapping[nn.Module, list[str]]) -> dict[str, nn.Module | nn.Parameter]:
    """Modules and Parameters that a network holds outside of its tree, by the path to them.

    They lie in plain lists and dictionaries, in objects, in variables of functions or on a class, where torch does not
    see them: they are in no state dict, and ``model.parameters()`` does not give them to an optimizer.

    Args:
        contents: of the network.
        names: its modules.

    Returns:
        Those modules that have Parameters of their own, and Parameters that are in none of them.
    """
    known = {id(parameter) for module in names for parameter in module.parameters(recurse=False)}
    found: dict[str, nn.Module | nn.Parameter] = {}
    places = [(module, contents.path_of(module, names)) for module in contents.of(nn.Module) if module not in names]
    places += _on_classes(names)
    for module, path in places:
        own = {id(parameter) for parameter in module.parameters(recurse=False)} - known
        if own and not _is_in_a_hook(path):
            found[path] = module
            known |= own
    for parameter in contents.of(nn.Parameter):
        path = contents.path_of(parameter, names)
        if id(parameter) not in known and not _is_in_a_hook(path):
            found[path] = parameter
    return found


def _is_in_a_hook(path: str) -> bool:
    """Whether something is reached by a function that is called around a forward, and has a life of its own."""
    return any(step.startswith("_") and step.endswith("hooks") for step in path.split("."))


def _on_classes(names: Mapping[nn.Module, list[str]]) -> list[tuple[nn.Module, str]]:
    """Modules that are attributes of the classes of modules, with where they are."""
    return [
        (inner, f"{all_names[0]}.{name}".lstrip("."))
        for module, all_names in names.items()
        for kind in type(module).__mro__
        if not kind.__module__.startswith("torch.")
        for name, value in vars(kind).items()
        if isinstance(value, nn.Module)
        for inner in value.modules()
        if inner not in names
    ]


def copy_tree(
    model: M,
    replaced: Mapping[nn.Module, nn.Module],
    shared: Iterable[object] = (),
    contents: Contents | None = None,
) -> M:
    """A new module tree over the same tensors, with some modules' copies made beforehand.

    Ties, aliases, lists of modules, bound methods and functions that hold modules are kept as they are, over the new
    modules; see `Copier`. Tensors are shared, and so are the dictionaries that hold Parameters and buffers: what
    ``.to()`` or an assignment changes in one tree is so in the other. Objects in ``shared`` are not copied either.
    ``contents`` are those of the model, if they are known already.

    Raises:
        TypeError: something cannot be copied.
    """
    shared = list(shared)
    contents = contents or Contents(model, closed=shared)
    memo: dict[int, Any] = {id(old): new for old, new in replaced.items()}
    memo |= {id(value): value for value in (*shared, *contents.of(Tensor))}
    for module in contents.of(nn.Module):
        memo |= {id(tensors): tensors for tensors in (own_parameters(module), own_buffers(module))}
    copier = Copier(memo, contents.reaching(model.modules()), replaced)
    try:
        for old, new in replaced.items():
            new.__dict__.update(copier.copy(without_compiled_call(old.__dict__)))  # that is of the old layer
        return cast(M, copier.copy(model))
    except Exception as error:  # of any kind: objects have a say in how they are copied
        raise InvalidTypeError(
            f"convert: cannot build a second module tree of {type(model).__name__}: {error}. Convert before wrapping "
            "the model (DistributedDataParallel, fully_shard, compile), and keep handles such as files or locks out of "
            "its modules"
        ) from error


def own_copy(model: M) -> M:
    """A deep copy with tensors of its own; ones that hang in an autograd graph, which torch refuses, are cut off."""
    contents = Contents(model)
    memo: dict[int, Any] = {id(value): value.detach().clone() for value in contents.of(Tensor) if not value.is_leaf}
    return cast(M, Copier(memo, contents.reaching(model.modules()), {}).copy(model))


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Within the block, a model is in eval mode; afterwards each of its modules has the mode that it had before."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def visited(enter: Callable[[nn.Module], None], leave: Callable[[nn.Module], None]) -> Iterator[None]:
    """Within the block, hear of every module whose forward begins and ends."""

    def begin(module: nn.Module, args: object) -> None:
        enter(module)

    def end(module: nn.Module, args: object, output: object) -> None:
        leave(module)

    hooks = [register_module_forward_pre_hook(begin), register_module_forward_hook(end, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
