"""Code that users name: ``package.module:name``, or ``path/file.py:name``.

Nothing else of a recipe imports what a text says: this file is the door through which foreign code comes in. What only
a stored file names is kept out by `refuse_unnamed`.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from analogsim.errors import InvalidTypeError, InvalidValueError, MissingFileError, MissingPackageError

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PLACED = inspect.Parameter.POSITIONAL_ONLY
# By the place of each file that was named: its module, and what it was when that was made.
_files: dict[Path, tuple[str, tuple[int, int]]] = {}


def is_reference(text: object) -> bool:
    """Whether a text names code: ``package.module:name`` or ``path/file.py:name``."""
    if not isinstance(text, str):
        return False
    place, colon, name = text.rpartition(":")
    return bool(colon and _DOTTED.fullmatch(name) and (place.endswith(".py") or _DOTTED.fullmatch(place)))


def load_object(text: str, option: str) -> Any:
    """Import what the user named.

    A file's folder, or the working directory for a module, is where its neighbours are found. A file is run anew once
    it has changed.

    Args:
        text: ``package.module:name`` or ``path/file.py:name``.
        option: that it was given to, for errors.

    Raises:
        ValueError: it is no reference; or the import failed, with the error it failed by as the cause.
        FileNotFoundError: there is no such file.
        ImportError: there is no such module, or nothing of that name in it.
    """
    if not is_reference(text):
        raise InvalidValueError(
            f"{option}: {text!r} names no code; write package.module:name or path/file.py:name{_hint(text)}"
        )
    place, _, name = text.rpartition(":")
    module = _of_file(place, option) if place.endswith(".py") else _of_name(place, option)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = difflib.get_close_matches(part, _public(found), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            has = ", ".join(_public(found)[:8]) or "nothing of its own"
            raise MissingPackageError(f"{option}: {place} has no {name!r}; {hint}it has {has}") from None
    return found


def call_factory(factory: Any, option: str, facts: Mapping[str, Any]) -> Any:
    """Call what the user named, with those facts that its parameters name; other parameters keep their defaults.

    Args:
        factory: a function, or a class.
        option: that it was given to, for errors.
        facts: what it may ask for; one that is None is not known.

    Raises:
        TypeError: it cannot be called, or asks for what is not known.
        ValueError: it raised an error, which is the cause.
    """
    if not callable(factory):
        raise InvalidTypeError(
            f"{option}: {named(factory)} must be a function or a class, got {type(factory).__name__}"
        )
    placed, given = _arguments(factory, option, {key: value for key, value in facts.items() if value is not None})
    with _told(f"{option}: {named(factory)}"):
        made = factory(*placed, **given)
    if inspect.iscoroutine(made):
        made.close()  # or Python warns that nobody waited for it
        raise InvalidTypeError(f"{option}: {named(factory)} is async, and nobody waits for what it gives; write def")
    return made


def _arguments(factory: Any, option: str, known: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """What a factory asks for of what is known, by place and by name.

    Raises:
        TypeError: it asks for more.
    """
    asked = {each.name: each for each in _parameters(factory)}
    lacking = [name for name, each in asked.items() if each.default is each.empty and name not in known]
    if lacking:
        raise InvalidTypeError(
            f"{option}: {named(factory)} asks for {', '.join(lacking)}; known here: {', '.join(known) or 'nothing'}. "
            "Give other parameters a default"
        )
    given = {name: known[name] for name, each in asked.items() if name in known and each.kind is not _PLACED}
    return [known.get(name, each.default) for name, each in asked.items() if each.kind is _PLACED], given


def _parameters(factory: Any) -> list[inspect.Parameter]:
    """Those that have a name; what collects others (``*args``, ``**kwargs``) gets nothing."""
    try:
        every = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some of C have none
        return []
    return [each for each in every if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]


def named(value: Any) -> str:
    """What a value is called in messages, and in the settings of a run that was given it in Python."""
    if isinstance(value, str):
        return value
    own = value if hasattr(value, "__qualname__") else type(value)
    return f"{own.__module__}:{own.__qualname__}"


def short(text: str) -> str:
    """A reference or an address as part of a folder's name: ``"nets-build"`` for ``"my/nets.py:build"``."""
    place, colon, name = text.rpartition(":")
    if not colon:
        return text
    return f"{Path(place).stem}-{name}" if is_reference(text) else f"{place}-{Path(name).stem}"


def refuse_unnamed(stored: Mapping[str, object], command: str, where: str) -> None:
    """Refuse code that only a stored file names.

    Args:
        stored: what the file has, by the option that would name it anew; what names no code is let through.
        command: to which the options are to be added.
        where: the file, for the message.

    Raises:
        ValueError: with the command to type.
    """
    code = {option: text for option, text in stored.items() if is_reference(text)}
    if code:
        options = " ".join(f"--{option} {text}" for option, text in code.items())
        raise InvalidValueError(
            f"{where} names code, {', '.join(map(str, code.values()))}, which is only run when you name it yourself: "
            f"{command} {options} (or --trust, for all that it names)"
        )


def _hint(text: object) -> str:
    """What could stand behind the name of a file that was given alone."""
    path = Path(str(text))
    if path.suffix != ".py" or not path.is_file():
        return ""
    with contextlib.suppress(SyntaxError, ValueError, OSError):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if names:
            return f", such as {path}:{names[0]}"
    return ""


def _public(holder: Any) -> list[str]:
    """Names of what a module defines itself, or of what an object has."""
    own = getattr(holder, "__name__", None)
    return [
        name
        for name, value in vars(holder).items()
        if not name.startswith("_")
        and (not isinstance(holder, ModuleType) or getattr(value, "__module__", None) == own)
    ]


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line that says so and where; the error itself is its cause."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        told = " ".join(str(error).split()) or "no message"
        if isinstance(error, SyntaxError):  # raised by the importer, of a line that it read
            frames, told = [*frames, (error.filename or "?", error.lineno)], error.msg
        place = f" in {frames[-1][0]}, line {frames[-1][1]}" if len(frames) > 1 else ""
        raise InvalidValueError(
            f"{what} raised {type(error).__name__}{place}: {told}; analogsim --debug ... shows it"
        ) from error


def _of_name(name: str, option: str) -> ModuleType:
    with _path_to(Path.cwd()):
        try:
            with _told(f"{option}: importing {name}"):
                return importlib.import_module(name)
        except ValueError as error:
            cause = error.__cause__
            # of the module itself, or of a package that it lies in; not of what it imports
            if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
                raise MissingPackageError(
                    f"{option}: there is no module {cause.name!r}, neither installed nor in {os.getcwd()}; give the "
                    "name of one, or path/file.py:name"
                ) from error
            raise


def _of_file(text: str, option: str) -> ModuleType:
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise MissingFileError(f"{option}: no file {text!r} (in {os.getcwd()}); give the path to it from here")
    stat = path.stat()
    state = (stat.st_mtime_ns, stat.st_size)
    name, before = _files.get(path, (None, None))
    if name in sys.modules and before == state:
        return sys.modules[name]
    if name is None:
        name = _free_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise MissingPackageError(f"{option}: {text!r} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    _forget_namesakes(path.parent)
    replaced = sys.modules.get(name)
    sys.modules[name] = module  # as import does: what is defined in it looks itself up there
    try:
        with _path_to(path.parent), _told(f"{option}: importing {text}"):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name)
        if replaced is not None:
            sys.modules[name] = replaced
        raise
    _files[path] = (name, state)
    return module


def _free_name(path: Path) -> str:
    """The name that ``import`` would give a file in its folder, by which other processes find it; or one of its own.

    That it has where the name belongs to something else.
    """
    name = path.stem
    if name.isidentifier():
        with contextlib.suppress(ImportError, ValueError):
            known = sys.modules.get(name)
            origin = getattr(known, "__file__", None) if known is not None else _origin(name)
            if known is None and origin is None:
                return name
            if origin is not None and Path(origin).resolve() == path:
                return name
    plain = "".join(letter if letter.isalnum() else "_" for letter in name)
    return f"{plain}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def _origin(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin or ""


def _forget_namesakes(folder: Path) -> None:
    """Forget modules of other folders that were named before, whose names modules of this folder have too.

    Two projects may each have a ``utils.py``; each gets its own.
    """
    others = {path.parent for path in _files} - {folder}
    for entry in folder.iterdir():
        name = entry.stem if entry.suffix == ".py" else entry.name
        known = getattr(sys.modules.get(name), "__file__", None)
        if known is None or folder in Path(known).parents:
            continue
        if any(other in Path(known).parents for other in others):
            del sys.modules[name]


@contextlib.contextmanager
def _path_to(folder: Path) -> Iterator[None]:
    """Let imports look into a folder first; afterwards last, for what is imported late and for processes to come."""
    text = str(folder)
    importlib.invalidate_caches()
    sys.path.insert(0, text)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(text)
        if text not in sys.path:
            sys.path.append(text)
