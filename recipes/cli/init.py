"""Write one of the configurations that come with analogsim: ``analogsim init fashion-mnist-lenet5``."""

from __future__ import annotations

import argparse
from pathlib import Path

from analogsim.errors import UnavailableError
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.outputs import check_output
from analogsim.recipes.config.ready import ready_file, ready_names
from analogsim.recipes.config.toml import load_toml
from analogsim.utils.files import write_whole
from analogsim.utils.text import table


def write_configuration(name: str, *, force: bool = False) -> Path:
    """Write a configuration into the working directory, for changes of one's own.

    Args:
        name: one of `ready_names`.
        force: whether a file of that name may be overwritten.

    Returns:
        The file, which opens with the command that runs it.

    Raises:
        ValueError: there is no such configuration.
        OSError: the file is there already, or cannot be written.
    """
    _, _, rest = ready_file(name).read_text(encoding="utf-8").partition("\n")
    target = Path(f"{name}.toml")
    check_output(target, "init")
    if target.exists() and not force:
        raise UnavailableError(f"init: there is a {str(target)!r} already; move it away, or overwrite it with --force")
    write_whole(target, f"# analogsim train {target}\n{rest}")
    return target


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write a configuration into this folder, to change it and to train by it; or list them."
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the configuration; default: list them")
    parser.add_argument("--force", action="store_true", help="overwrite a file that is there")


def _run(options: argparse.Namespace) -> object:
    if options.name is None:
        configs = {name: load_toml(Config, ready_file(name)) for name in ready_names()}
        rows = [(name, config.data.name, config.model, config.device) for name, config in configs.items()]
        print(table(("name", "data", "network", "device"), rows, right=4))
        if not options.quiet:
            print("\nanalogsim init NAME writes one into this folder; analogsim train NAME runs it as it is")
        return {"names": list(configs)}
    target = write_configuration(options.name, force=options.force)
    print(target)
    if not options.quiet:
        print(f"\nchange it as you like, and run it: analogsim train {target}")
    return {"file": str(target)}


PROGRAM = Program(
    "init",
    "write a ready configuration into this folder",
    _declare,
    _run,
    examples=("init", "init fashion-mnist-lenet5"),
    result="what was written",
)
