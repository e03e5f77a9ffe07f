"""What every command can be asked for alike: its result as JSON, on standard output too, and quiet."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.outputs import check_output, kept_result
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

    Where an error ends the block, what `keep_result` was given is written.

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
        try:
            yield given.append
        except BaseException:
            known = kept_result(options)
            if file is not None and known is not None:
                with contextlib.suppress(OSError):  # the first error is the one to be told
                    _write(known, file, output)
                    told = "what was found before that is written" + ("" if file == _STANDARD else f" to {file}")
                    print(f"analogsim: {told}", file=sys.stderr)
            raise
    for result in given:
        if file is not None and result is not None:  # None: another process of the same command writes it
            _write(result, file, output)


def _write(result: object, file: str, output: TextIO) -> None:
    text = json.dumps(result)
    if file == _STANDARD:
        print(text, file=output, flush=True)
    else:
        write_whole(file, text)
