"""Every file that analogsim, its recipes and the benchmarks write whole goes through `write_whole`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import analogsim
from tests.whole.tree import Module, called, read_tree

WRITING = {
    *(
        "write_text",
        "write_bytes",
        "save_file",
        "savefig",
        "torch.save",
        "json.dump",
        "pickle.dump",
        "tofile",
        "to_csv",
    ),
    *("to_json", "to_html", "to_parquet", "savetxt", "savez", "imsave", "copy2", "copyfile", "copytree"),
    *("os.replace", "os.rename", "shutil.copy", "shutil.move"),
    *("mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory"),
}

# Where else something is written, and why that is no file which must be whole.
OTHERWISE = {
    ("analogsim.utils.files", "savefig"): "into memory, which write_whole takes",
    ("analogsim.utils.files", "open(wb)"): "write_whole itself",
    ("analogsim.utils.files", "open(r+b)"): "write_whole itself",
    ("analogsim.utils.files", "os.open"): "write_whole itself",
    ("analogsim.utils.files", "os.replace"): "write_whole itself",
    ("analogsim.utils.tensor_files", "torch.save"): "into memory, which write_whole takes",
    ("analogsim.utils.tensor_files", "save_file"): "a draft of write_whole",
    ("analogsim.utils.tensor_files", "open(r+b)"): "a draft of write_whole, which gets its digest",
    ("analogsim.evaluation.journal", "os.open"): "lines that are only added, each with a digest of itself",
    ("analogsim.evaluation.journal", "open(r+b)"): "the same file",
    ("analogsim.evaluation.workers", "TemporaryDirectory"): "what workers need while a call runs",
    ("analogsim.evaluation.workers", "torch.save"): "into memory, which write_whole takes",
    ("analogsim.recipes.cli.command_line", "os.open"): "standard output that nobody reads, to nowhere",
    ("analogsim.recipes.comparison.html_page", "savefig"): "into the text of the page",
    ("analogsim.recipes.comparison.saved_runs", "TemporaryDirectory"): "what is read from MLflow on its way",
    ("analogsim.recipes.config.outputs", "savefig"): "into memory, to see whether it can be drawn",
    ("analogsim.recipes.study.lease", "open(ab)"): "a file that is locked meanwhile",
    ("analogsim.recipes.training.owner", "os.open"): "who owns a folder, in a file that is locked meanwhile",
    ("analogsim.recipes.training.owner", "open(r+b)"): "the same file",
    ("analogsim.recipes.study.folder", "TemporaryFile"): "whether anything can be written there",
    ("analogsim.recipes.study.folder", "mkdtemp"): "a folder, made with its mark and renamed into place",
    ("analogsim.recipes.study.folder", "os.rename"): "of that folder",
    ("analogsim.recipes.tracking.tracked_run", "savefig"): "into memory, on its way to MLflow",
    ("analogsim.recipes.tracking.tracked_run", "TemporaryDirectory"): "what is on its way to MLflow",
    ("analogsim.recipes.tracking.tracked_run", "write_bytes"): "in that folder",
    ("analogsim.recipes.tracking.tracked_run", "open(a)"): "metrics that MLflow did not take, appended",
    ("benchmarks.adapters", "TemporaryDirectory"): "adapters of chips that are judged and thrown away",
    ("benchmarks.cluster", "TemporaryDirectory"): "a network, journals and reports that are compared and thrown away",
    ("benchmarks.cluster", "torch.save"): "in that folder",
    ("benchmarks.growth", "TemporaryDirectory"): "what processes tell one another",
    ("benchmarks.mutants", "TemporaryDirectory"): "a copy of the checkout that is changed",
    ("benchmarks.mutants", "copytree"): "that copy",
    ("benchmarks.mutants", "write_text"): "changes in it",
    ("benchmarks.mutants", "os.open"): "what its tests say",
    ("benchmarks.mutants", "open(w)"): "what its tests say",
    ("benchmarks.startup", "TemporaryDirectory"): "an empty cache of compiled code",
    ("benchmarks.harness.clocks", "write_text"): "a module of a process whose clock is wrong, thrown away",
    ("benchmarks.harness.postgres", "TemporaryFile"): "what a server says",
    ("benchmarks.storm", "TemporaryDirectory"): "a study in a storm, thrown away",
    ("benchmarks.storm", "copytree"): "what its workers said, kept on request",
    ("benchmarks.storm", "mkdtemp"): "where the module of a wrong clock lies",
    ("benchmarks.storm", "open(ab)"): "what servers say, and what fills a disk",
    ("benchmarks.storm", "open(wb)"): "what the last worker says",
    ("benchmarks.storm", "os.open"): "what workers say",
    ("benchmarks.storm", "shutil.copy"): "the databases, kept on request",
    ("benchmarks.storm", "write_text"): "what was found",
    ("benchmarks.tracking", "TemporaryDirectory"): "runs that are timed and thrown away",
}


def writing(node: ast.AST) -> Iterator[tuple[str, int]]:
    """The calls that write a file, each with its line; those of a function that `write_whole` is given are its own."""
    if isinstance(node, ast.Call):
        name = called(node)
        if name == "write_whole":
            return
        last = name.rpartition(".")[2]
        if name in WRITING or last in WRITING:
            yield name if name in WRITING else last, node.lineno
        elif name == "os.open":
            yield name, node.lineno
        elif last in ("open", "fdopen") and (mode := _mode(node)) is not None:
            yield f"open({mode})", node.lineno
    for below in ast.iter_child_nodes(node):
        yield from writing(below)


def _mode(call: ast.Call) -> str | None:
    """The mode that a file is opened in, if that is not for reading; of a path's method it is the first argument."""
    given = [*call.args[:2], *(word.value for word in call.keywords if word.arg == "mode")]
    texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return next((mode for mode in texts if set(mode) <= set("rwaxbt+") and set(mode) & set("wax+")), None)


def modules() -> dict[str, Module]:
    package = Path(analogsim.__file__).resolve().parent
    return read_tree(package, package.parent / "benchmarks")


def test_files_are_written_whole() -> None:
    found = {(module.name, call): line for module in modules().values() for call, line in writing(module.tree)}
    new = [f"{name}:{line} {call}" for (name, call), line in found.items() if (name, call) not in OTHERWISE]
    assert not new, "\n".join(["analogsim.utils.files.write_whole writes files:", *new])
    assert sorted(OTHERWISE.keys() - found.keys()) == []


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("Path('a').write_text('')", "write_text"),
        ("import torch\ntorch.save({}, 'a')", "torch.save"),
        ("open('file', 'w')", "open(w)"),
        ("open(name, mode='xb')", "open(xb)"),
        ("def f(path):\n    with path.open('r+b'): pass", "open(r+b)"),
        ("figure.savefig('a.png')", "savefig"),
        ("lambda: os.replace('a', 'b')", "os.replace"),
        ("gzip.open('file', 'wb')", "open(wb)"),
        ("write_whole('a', lambda draft: save_file({}, draft))", None),
        ("open('file')", None),
        ("open('file', 'rb')", None),
        ("Path('wax').open()", None),
        ("text.replace('a', 'b')", None),
    ],
)
def test_the_walk_sees_what_writes(text: str, call: str | None) -> None:
    assert [name for name, _ in writing(ast.parse(text))] == ([] if call is None else [call])
