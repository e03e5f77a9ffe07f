"""The device models, and what can be set of each: ``analogsim devices "pcm(...)"``."""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import textwrap
import typing
from collections.abc import Iterable, Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Any, Literal

import analogsim
from analogsim.device.parse import as_device_model
from analogsim.device.registry import factory
from analogsim.mapping.mapping import LIMITS
from analogsim.recipes.config.arguments import Program
from analogsim.utils.text import table


@dataclass(frozen=True)
class Settable:
    """What may stand in the parentheses of a device.

    Args:
        name: of the parameter.
        default: where nothing is said.
        unit: of the number; "1" without one.
        allowed: what it may be, in words; empty where the meaning says it.
        meaning: what it is.
        laid: whether it is of how weights are laid on cells, and so of the whole chain.
    """

    name: str
    default: Any
    unit: str
    allowed: str
    meaning: str
    laid: bool = False

    def __str__(self) -> str:
        facts = "; ".join(part for part in (self.unit if self.unit != "1" else "", self.allowed) if part)
        return f"{self.name}={self.default!r}" + (f"  [{facts}]" if facts else "")


def settable(name: str) -> tuple[Settable, ...]:
    """What can be set of a device, and with it of how weights are laid on its cells.

    Args:
        name: as it is registered.

    Raises:
        ValueError: an unknown name.
    """
    make = factory(name)
    model = as_device_model(name)
    own = tuple(_of_factory(make, model.unit))
    known = {one.name for one in own}
    laid = (one for one in _of_mapping(model.laid) if one.name not in known)
    return (*own, *laid)


def _of_factory(make: Any, unit: str) -> Iterator[Settable]:
    """Of the device itself: fields of an effect, or arguments of a function."""
    meanings = _meanings(make)
    specs = {spec.name: spec for spec in fields(make) if spec.metadata} if is_dataclass(make) else {}
    hints = typing.get_type_hints(make.__init__ if inspect.isclass(make) else make)
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        meaning = meanings.get(name, "")
        if name in specs:
            yield Settable(name, parameter.default, specs[name].metadata["unit"], allowed(specs[name]), meaning)
            continue
        listed = _choices(hints.get(name)) or tuple(re.findall(r'"([^"]+)"', meaning.partition(";")[0]))
        conductance = {"g_min": ">= 0", "g_max": "> 0"}.get(name)
        span = ", ".join(listed) if conductance is None else conductance
        yield Settable(name, parameter.default, "1" if conductance is None else unit, span, meaning)


def _of_mapping(laid: analogsim.Mapping) -> Iterator[Settable]:
    meanings, hints = _meanings(analogsim.Mapping), typing.get_type_hints(analogsim.Mapping)
    for spec in fields(laid):
        least, most = LIMITS.get(spec.name, (None, None))
        span = ", ".join(_choices(hints[spec.name])) if least is None else f"{least} to {most}"
        percent = spec.name == "percentile"
        yield Settable(
            spec.name,
            getattr(laid, spec.name),
            "%" if percent else "1",
            "> 0, <= 100" if percent else span,
            meanings.get(spec.name, ""),
            laid=True,
        )


def _choices(hint: Any) -> tuple[str, ...]:
    return tuple(map(str, typing.get_args(hint))) if typing.get_origin(hint) is Literal else ()


def _meanings(documented: Any) -> dict[str, str]:
    """What a docstring says of each argument, in one line."""
    _, _, told = (inspect.getdoc(documented) or "").partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", re.split(r"\n(?=\S)", told)[0], re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in found}


def allowed(spec: Field[Any]) -> str:
    """What a parameter of an effect may be, in words."""
    rules = spec.metadata
    if rules["choices"] is not None:
        return ", ".join(rules["choices"])
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="))
    limits = [f"{sign} {rules[rule]:g}" for rule, sign in signs if rules[rule] is not None]
    words = " or ".join(rules.get("words") or ())
    return ", ".join(limits) + (f"; or {words}" if words else "")


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the device models, or show one: its parameters, and what can be set."
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="one of them, with parameters if you like, or its file; default: list"
    )


def _run(options: argparse.Namespace) -> object:
    return _list(options) if options.name is None else _show(options)


def _list(options: argparse.Namespace) -> object:
    known = analogsim.available_devices()
    first = [(inspect.getdoc(factory(name)) or "").partition("\n")[0] for name in known]
    print(table(("device", "what it is"), list(zip(known, first, strict=True)), right=2))
    if not options.quiet:
        print('\nanalogsim devices NAME shows one; combine several with "+", as in "quantization(levels=16)+drift"')
        print('how weights are laid on cells may stand among the parameters of each, as in "pcm(copies=2)"')
    return [{"name": name, "description": text} for name, text in zip(known, first, strict=True)]


def _show(options: argparse.Namespace) -> object:
    # "pcm(...)" and "pcm()" ask for what may stand there.
    text = re.sub(r"\(\s*(\.\.\.|…)?\s*\)", "", options.name)
    model = as_device_model(text)
    parts = "" if text.endswith(".toml") else re.sub(r"\([^()]*\)", "", text)
    names = tuple(dict.fromkeys(re.findall(r"(?:^|\+)\s*([A-Za-z][\w-]*)", parts)))
    if len(names) == 1:
        print(f"{inspect.getdoc(factory(names[0]))}\n")
    parameters = _values(model)
    rows = [(name, str(value), unit, span) for name, value, unit, span in parameters]
    print(table(("parameter", "value", "unit", "allowed"), rows, right=4))
    print(f"\n{model!r}")
    can = {name: settable(name) for name in names}
    for name, several in can.items():
        print(f"\nwhat can be set in {name}(...), with defaults and units:\n\n{_told(several, laid=False)}")
    if can:
        every = {one.name: one for several in can.values() for one in several}.values()
        print(f"\nand of how weights are laid on cells, once for the whole device:\n\n{_told(every, laid=True)}")
    heads = ("name", "value", "unit", "allowed")
    return {
        "device": text,
        "parameters": [dict(zip(heads, row, strict=True)) for row in parameters],
        "settable": {name: [vars(one) for one in several] for name, several in can.items()},
    }


def _values(model: analogsim.DeviceModel) -> list[tuple[str, Any, str, str]]:
    """The parameters of the effects of a device and of its mapping: name, value, unit, what is allowed."""
    found = [
        (f"{type(effect).__name__}.{spec.name}", getattr(effect, spec.name), spec.metadata["unit"], allowed(spec))
        for effect in model.effects
        for spec in fields(effect)
        if spec.metadata
    ]
    return found + [(f"Mapping.{one.name}", one.default, one.unit, one.allowed) for one in _of_mapping(model.laid)]


def _told(several: Iterable[Settable], *, laid: bool) -> str:
    """What can be set of a device itself, or of how weights are laid on it, which is told in its first sentence."""
    width = min(shutil.get_terminal_size().columns, 120) - 1
    lines = []
    for one in several:
        if one.laid == laid:
            text = re.split(r"(?<=\.) (?=[A-Z])", one.meaning)[0] if laid else one.meaning
            lines += [f"  {one}", textwrap.fill(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines) or "  nothing"


PROGRAM = Program(
    "devices",
    "list the device models, or show what can be set of one",
    _declare,
    _run,
    examples=("devices", "devices pcm", 'devices "stuck-at(...)"', 'devices "quantization(levels=16)+drift"'),
    result="the device models",
)
