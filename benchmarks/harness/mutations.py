"""Small wrong changes of a program, as a tired person might make them: what a test should notice.

Each is the exchange of one expression or statement in one file, found in the syntax tree and made in the text, so that
all else stays as it is. Which of the many are tried is a matter of a hash over the place and the change, not of line
numbers: code that does not change keeps its share of the sample.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast


@dataclass(frozen=True)
class Mutation:
    """One wrong change.

    Args:
        path: of the file, from the root of the checkout.
        function: the function around it, with its class; ``"(module)"`` outside of any.
        line: of its first character, from 1.
        before: the text that goes.
        after: the text that takes its place.
        start: where ``before`` begins in the file's text.
        rank: what it is chosen by: a hash.
    """

    path: str
    function: str
    line: int
    before: str
    after: str
    start: int
    rank: str

    @property
    def package(self) -> str:
        """The folder, as ``"analogsim/layers"``; of a top-level module the folder it lies in."""
        parts = Path(self.path).parts
        return "/".join(parts[:2]) if len(parts) > 2 else parts[0]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What names it wherever its line goes."""
        return self.path, self.function, self.before, self.after

    def applied(self, text: str) -> str:
        """The file's text with the change."""
        end = self.start + len(self.before)
        if text[self.start : end] != self.before:
            raise ValueError(f"{self.path}:{self.line} does not read {self.before!r}")
        return text[: self.start] + self.after + text[end:]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} in {self.function}: {_short(self.before)} -> {_short(self.after)}"


_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.Pow: "*",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.BitXor: "&",
    ast.LShift: ">>",
    ast.RShift: "<<",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_NAMES = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "amin": "amax",
    "amax": "amin",
    "sum": "mean",
    "mean": "sum",
    "sqrt": "square",
    "square": "sqrt",
    "cos": "sin",
    "sin": "cos",
    "add_": "sub_",
    "sub_": "add_",
    "mul_": "div_",
    "div_": "mul_",
    "floor": "ceil",
    "ceil": "floor",
    "union": "intersection",
    "append": "count",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
}
_DROPPED = {"abs", "abs_", "clamp_min_", "clamp_max_", "clamp", "round", "round_", "neg", "log1p_", "sqrt_", "detach"}
_TYPES = {"tuple", "list", "dict", "set", "frozenset", "type"}


def find_mutations(root: Path, path: str) -> list[Mutation]:
    """Every wrong change of a file.

    Args:
        root: of the checkout.
        path: of the file from there.
    """
    text = (root / path).read_text(encoding="utf-8")
    finder = _Finder(path, text)
    finder.visit(ast.parse(text))
    return finder.found


def choose(mutations: Iterable[Mutation], count: int, least: int) -> list[Mutation]:
    """A sample: packages in proportion to what can be changed in them, ``least`` of each where there are as many."""
    packages: dict[str, list[Mutation]] = {}
    for mutation in sorted(mutations, key=lambda mutation: mutation.rank):
        packages.setdefault(mutation.package, []).append(mutation)
    total = sum(map(len, packages.values()))
    chosen = []
    for members in packages.values():
        share = max(least, round(count * len(members) / total))
        lines: set[tuple[str, int]] = set()
        for mutation in members:
            if share and (mutation.path, mutation.line) not in lines:
                lines.add((mutation.path, mutation.line))
                chosen.append(mutation)
                share -= 1
    return sorted(chosen, key=lambda mutation: (mutation.path, mutation.line))


class _Finder(ast.NodeVisitor):
    """Walks a file; what only speaks (messages, annotations, docstrings) is passed over."""

    def __init__(self, path: str, text: str) -> None:
        self.found: list[Mutation] = []
        self._path = path
        self._text = text
        self._lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._names: list[str] = []
        self._seen: dict[tuple[str, str, str], int] = {}

    def _place(self, line: int, column: int) -> int:
        """Where a place given in bytes of its line lies in the text."""
        before = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(before)

    def _add(self, node: ast.expr | ast.stmt, after: str) -> None:
        if "pragma: no cover" in self._lines[node.lineno - 1]:
            return
        start = self._place(node.lineno, node.col_offset)
        end = self._place(cast(int, node.end_lineno), cast(int, node.end_col_offset))
        before, function = self._text[start:end], ".".join(self._names) or "(module)"
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.Attribute):
            after = f"({after})"
        occurrence = self._seen[(function, before, after)] = self._seen.get((function, before, after), 0) + 1
        key = "\0".join((self._path, function, before, after, str(occurrence)))
        rank = hashlib.sha256(key.encode()).hexdigest()
        self.found.append(Mutation(self._path, function, node.lineno, before, after, start, rank))

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._text, node) or ast.unparse(node)

    def _scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._names.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self._names.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Classes that only say what others have are passed over."""
        if not any("Protocol" in self._source(base) for base in node.bases):
            self._scope(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Defaults and body; decorators and annotations are passed over."""
        if any(self._source(mark).endswith(("abstractmethod", "overload")) for mark in node.decorator_list):
            return
        self._names.append(node.name)
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        self._names.pop()
        self._scope(node)

    def visit_If(self, node: ast.If) -> None:
        """The condition turned round, unless it is there for types."""
        if self._source(node.test) == "TYPE_CHECKING":
            return
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
            self._add(node.test, f"not ({self._source(node.test)})")
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """The two values exchanged."""
        body, test, orelse = map(self._source, (node.body, node.test, node.orelse))
        self._add(node, f"({orelse}) if ({test}) else ({body})")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A call for what it does, left out."""
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self._add(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """An addition to a name, left out."""
        self._add(node, "pass")
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value alone."""
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        """What is said is passed over."""

    def visit_Assert(self, node: ast.Assert) -> None:
        """What cannot be otherwise is passed over."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """What is said is passed over."""

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """An index, not the arguments of a type."""
        name = self._source(node.value).rsplit(".", 1)[-1]
        if name in _TYPES or name[:1].isupper():
            return
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Another operator."""
        other = _OPERATORS.get(type(node.op))
        types = isinstance(node.op, ast.BitOr) and any(
            self._source(side) in ("None", "float", "int", "str") for side in (node.left, node.right)
        )
        text = isinstance(node.left, ast.Constant | ast.JoinedStr) and not isinstance(
            getattr(node.left, "value", None), int | float
        )
        if other is not None and not types and not text:
            self._add(node, f"({self._source(node.left)}) {other} ({self._source(node.right)})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """And for or; one condition less."""
        other = " or " if isinstance(node.op, ast.And) else " and "
        parts = [f"({self._source(value)})" for value in node.values]
        self._add(node, other.join(parts))
        own = " and " if isinstance(node.op, ast.And) else " or "
        self._add(node, own.join(parts[:-1]))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """The sign, or the not, left out."""
        if isinstance(node.op, ast.USub | ast.Not):
            self._add(node, self._source(node.operand))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """A border, or the other way round."""
        other = _COMPARISONS.get(type(node.ops[0]))
        if other is not None and len(node.ops) == 1:
            self._add(node, f"({self._source(node.left)}) {other} ({self._source(node.comparators[0])})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Another number, or the other truth."""
        value = node.value
        if isinstance(value, bool):
            self._add(node, str(not value))
        elif isinstance(value, int):
            self._add(node, str(value + 1))
        elif isinstance(value, float):
            self._add(node, repr(2 * value or 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        """A related function, or the call left out of a chain; what a warning says is passed over."""
        if self._source(node.func) == "warnings.warn":
            return
        if isinstance(node.func, ast.Attribute):
            owner, name = self._source(node.func.value), node.func.attr
            if name in _NAMES:
                self._add(node.func, f"({owner}).{_NAMES[name]}")
            elif name in _DROPPED and not isinstance(node.func.value, ast.Name):
                self._add(node, owner)
        elif isinstance(node.func, ast.Name) and node.func.id in _NAMES:
            self._add(node, self._source(node).replace(node.func.id, _NAMES[node.func.id], 1))
        self.generic_visit(node)


def _short(text: str, width: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def sources(root: Path, folders: Iterable[str]) -> Iterator[str]:
    """The Python files under folders of a checkout, links not followed."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            own = path.relative_to(root)
            if not any((root / parent).is_symlink() for parent in own.parents):
                yield own.as_posix()
