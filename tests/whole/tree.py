"""The modules of a source tree and what they import, read from the text: nothing is imported, so nothing is hidden."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    """One file of a package.

    Args:
        name: its dotted name; a package goes by its own.
        path: its file.
        tree: its syntax tree.
    """

    name: str
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def folder(self) -> str:
        """The package that it is a file of; a package's `__init__` is one of its own."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    """That one module of the tree imports another.

    Args:
        source: the dotted name of who imports.
        target: of who is imported.
        names: what is taken from there; empty for the module itself.
        line: where.
    """

    source: str
    target: str
    names: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        taken = f" ({', '.join(self.names)})" if self.names else ""
        return f"{self.source}:{self.line} imports {self.target}{taken}"


def read_tree(*packages: Path) -> dict[str, Module]:
    """Every module of these packages by its dotted name, with links to folders followed."""
    modules = {}
    for package in packages:
        for place, folders, files in os.walk(package, followlinks=True):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for file in sorted(files):
                path = Path(place, file)
                if path.suffix == ".py":
                    parts = path.relative_to(package.parent).with_suffix("").parts
                    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                    modules[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
    return modules


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = module.folder.split(".")
    base = base[: len(base) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def _known(name: str, modules: Mapping[str, Module]) -> str | None:
    """The module of the tree that a dotted name is, or is something in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def imports_of(module: Module, modules: Mapping[str, Module]) -> Iterator[Import]:
    """What a module imports of the tree: anywhere in its text, for types only too, and by importlib.

    ``from package import name`` is an import of ``package.name`` where that is a module, else of ``package``. A module
    does not import the packages that it lies in by being one of their files. In a module that calls ``import_module``
    every text that is the name of a module of the tree counts as an import of it.
    """
    calls = (called(node) for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    by_text = any(name.rpartition(".")[2] == "import_module" for name in calls)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if target := _known(alias.name, modules):
                    yield Import(module.name, target, (), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(module, node)
            taken = [alias.name for alias in node.names if f"{origin}.{alias.name}" not in modules]
            for alias in node.names:
                if alias.name not in taken:
                    yield Import(module.name, f"{origin}.{alias.name}", (), node.lineno)
            if taken and (target := _known(origin, modules)):
                yield Import(module.name, target, tuple(taken), node.lineno)
        elif by_text and isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in modules:
            yield Import(module.name, node.value, (), node.lineno)


def called(call: ast.Call) -> str:
    """What is called, as far as it is written in names: ``os.replace``, ``write_text``."""
    if isinstance(call.func, ast.Attribute):
        owner = call.func.value
        return f"{owner.id}.{call.func.attr}" if isinstance(owner, ast.Name) else call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def all_imports(modules: Mapping[str, Module]) -> list[Import]:
    """Every import within the tree."""
    return [one for module in modules.values() for one in imports_of(module, modules) if one.target != one.source]


def reached_into(module: Module, modules: Mapping[str, Module]) -> Iterator[Import]:
    """The names with an underscore that a module takes of others: imported, or as attributes of an imported module."""
    bound: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name: f"{_absolute(module, node)}.{alias.name}" for alias in node.names}
            bound |= {name: target for name, target in names.items() if target in modules}
        elif isinstance(node, ast.Import):
            bound |= {alias.asname: alias.name for alias in node.names if alias.asname and alias.name in modules}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and is_own(node.attr) and isinstance(node.value, ast.Name):
            target = bound.get(node.value.id)
            if target is not None:
                yield Import(module.name, target, (node.attr,), node.lineno)
    for one in imports_of(module, modules):
        if one.target != module.name and any(map(is_own, one.names)):
            yield one


def is_own(name: str) -> bool:
    """Whether a name is one that a module keeps to itself."""
    return name.startswith("_") and not name.startswith("__")


def graph(edges: Iterable[tuple[str, str]], nodes: Iterable[str] = ()) -> dict[str, set[str]]:
    """Who stands on whom."""
    found: dict[str, set[str]] = {node: set() for node in nodes}
    for source, target in edges:
        found.setdefault(source, set()).add(target)
        found.setdefault(target, set())
    return found


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of two or more nodes that each lead to one another (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        path.append(node)
        for after in sorted(edges[node]):
            if after not in number:
                visit(after)
            if after in path:
                low[node] = min(low[node], low[after])
        if low[node] == number[node]:
            group = path[path.index(node) :]
            del path[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in number:
            visit(node)
    return found


def floors(edges: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each node: 1 for who stands on nobody, else one above the highest it stands on; without circles."""
    found: dict[str, int] = {}

    def floor(node: str) -> int:
        if node not in found:
            found[node] = 1 + max((floor(below) for below in edges[node]), default=0)
        return found[node]

    for node in edges:
        floor(node)
    return found


def without_circles(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same with each circle drawn together to one node, which is named after all that are in it."""
    names = {node: "+".join(group) for group in circles(edges) for node in group}
    return graph(
        (
            (names.get(node, node), names.get(below, below))
            for node in edges
            for below in edges[node]
            if names.get(node, node) != names.get(below, below)
        ),
        {names.get(node, node) for node in edges},
    )


def bound_names(module: Module) -> dict[str, int]:
    """The names that the statements of a module bind, each with its line; its own submodules imported as such are not.

    A submodule is an attribute of its package anyhow: ``from package import module`` in ``package`` changes nothing.
    """
    found: dict[str, int] = {}
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node.lineno
        elif isinstance(node, ast.ImportFrom):
            whole = _absolute(module, node) == module.name
            names = (alias for alias in node.names if not (whole and alias.asname in (None, alias.name)))
            found |= {alias.asname or alias.name: node.lineno for alias in names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: node.lineno for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: node.lineno for target in targets for name in ast.walk(target) if _is_bound(name)}
    return found


def _is_bound(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def hidden_modules(modules: Mapping[str, Module]) -> list[str]:
    """The modules that ``import package.module as name`` does not give: their package binds the name to another."""
    return [
        f"{package.name}.{name}, by line {line} of {package.path}"
        for package in modules.values()
        if package.is_package
        for name, line in bound_names(package).items()
        if f"{package.name}.{name}" in modules
    ]


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(node: ast.AST, inside: str = "") -> Iterator[tuple[str, Function]]:
    """The functions and methods below a node by their names, those inside others too."""
    for below in ast.iter_child_nodes(node):
        if isinstance(below, Function):
            yield f"{inside}{below.name}", below
        named = isinstance(below, Function | ast.ClassDef)
        yield from functions_of(below, f"{inside}{below.name}." if named else inside)


def _own(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function's body, without those of functions and classes inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))


def complexity(function: Function) -> int:
    """McCabe's number: one, and one for each place where the way forks, conditions joined by and/or included."""
    number = 1
    for node in _own(function):
        if isinstance(node, ast.If | ast.IfExp | ast.Assert | ast.ExceptHandler):
            number += 1
        elif isinstance(node, ast.For | ast.AsyncFor | ast.While):
            number += 1 + bool(node.orelse)
        elif isinstance(node, ast.Try):
            number += bool(node.orelse)
        elif isinstance(node, ast.BoolOp):
            number += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            number += 1 + len(node.ifs)
        elif isinstance(node, ast.match_case):
            number += not (isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None)
    return number
