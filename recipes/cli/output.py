"""What every command can be asked for alike: its result as JSON, on standard output too, and quiet."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator

from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.outputs import check_output
from analogsim.utils.files import write_whole

_STANDARD = "-"


def add_output(parser: argparse.ArgumentParser, program: Program) -> None:
    """Give a command ``--json``, where it has a result, and ``--quiet``."""
    if program.result is not None:
        parser.add_argument(
            "--json",
            metavar="FILE",
            help=f"write {program.result} as JSON; -: to standard output, and tables and messages to standard error",
        )
    parser.add_argument(
        "--quiet", action="store_true", help="only what was asked for, warnings and errors: no progress, no hints"
    )


@contextlib.contextmanager
def result_written(options: argparse.Namespace) -> Iterator[Callable[[object], None]]:
    """Run a command in this block; what is given to the function that it gets is written where ``--json`` says.

    For ``-`` it is alone on standard output: whatever else is printed in the block goes to standard error, or nowhere
    where it is to be quiet.

    Raises:
        ValueError, OSError: the file could not be written; told before the block.
    """
    file, given = getattr(options, "json", None), list[object]()
    output = sys.stdout
    with contextlib.ExitStack() as scope:
        if file == _STANDARD:
            elsewhere = io.StringIO() if options.quiet else sys.stderr
            scope.enter_context(contextlib.redirect_stdout(elsewhere))
        elif file is not None:
            check_output(file, options.command)
        yield given.append
    for result in given:
        if file is None or result is None:  # None: another process of the same command writes it
            continue
        text = json.dumps(result)
        if file == _STANDARD:
            print(text, file=output, flush=True)
        else:
            write_whole(file, text)
