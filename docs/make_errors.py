"""Write docs/errors.md from the classes of errors: ``python docs/make_errors.py``, at the checkout's root."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

from analogsim import errors

# Classes that stand where they are raised.
ELSEWHERE = (
    *("analogsim.inspection.carrying", "analogsim.recipes.training.loop", "analogsim.recipes.training.processes"),
    *("analogsim.recipes.study.lease", "analogsim.recipes.tasks.sources.parts"),
)
HEAD = """\
# Errors

What analogsim refuses or cannot do it says in one line: what is wrong, the value that was given, what to do. Each such
error is an `analogsim.AnalogsimError`, by one of the kinds below, and besides the error of Python's in its row, so that
`except ValueError` takes it too. They go through pickle, as workers send them.

The command line prints these, what the operating system answers (`OSError`: no space, no right to read), and what your
own code raises with its file and line, in one line, and ends with status 2; `analogsim --debug COMMAND` shows the
traceback. Anything else was not foreseen: it comes with its traceback and the request to report it.

This page is made from the classes: `python docs/make_errors.py`.
"""


def classes() -> Iterator[type[Exception]]:
    """Every error and warning of ours, in the order of the files."""
    for name in ("analogsim.errors", *ELSEWHERE):
        module = importlib.import_module(name)
        found = [one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == name]
        found = [one for one in found if issubclass(one, errors.AnalogsimError | UserWarning)]
        yield from sorted(found, key=lambda one: inspect.getsourcelines(one)[1])


def row(kind: type[Exception]) -> str:
    """What a class says of itself: what it is, its cause, its cure."""
    text = inspect.cleandoc(kind.__doc__ or "")
    what, _, rest = text.partition("\n\n")
    cause, _, cure = " ".join(rest.split()).partition(" Cure: ")
    python = next(one.__name__ for one in kind.__mro__ if one.__module__ == "builtins")
    ours = [one.__name__ for one in kind.__bases__ if one.__module__ == errors.__name__]
    parent = next((name for name in ours if name != "AnalogsimError"), "")
    is_a = f"`{python}`" + (f", `{parent}`" if parent else "")
    cells = [f"`{kind.__name__}`", is_a, " ".join(what.split()), cause.removeprefix("Cause: "), cure]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, parent in (("Errors", errors.AnalogsimError), ("Warnings", UserWarning)):
        rows = [row(one) for one in classes() if issubclass(one, parent) and one is not errors.AnalogsimError]
        lines += [
            f"## {title}\n",
            "| class | is also | what it says | cause | cure |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(__file__).with_name("errors.md").write_text(page(), encoding="utf-8")
