"""The command line, ``analogsim COMMAND``, and the commands that are no more than a look at something."""

from analogsim.recipes.cli.command_line import PROGRAMS, main

__all__ = ["PROGRAMS", "main"]
