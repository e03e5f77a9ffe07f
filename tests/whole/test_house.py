"""The house: one room for each stage of a weight's life, and no import that runs back up.

A storey's packages may import what stands on the storeys below them, and nothing of their own storey or above it. That
holds for imports inside functions, for those that only types need, and through the links analogsim/devices and
analogsim/recipes. What is found by the name of an entry point is no import: plug-ins, and like them our own
layers for types of other packages.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import analogsim
from tests.whole.tree import (
    Import,
    Module,
    all_imports,
    circles,
    complexity,
    floors,
    functions_of,
    graph,
    hidden_modules,
    is_own,
    reached_into,
    read_tree,
    without_circles,
)

PLACE = Path(analogsim.__file__).resolve().parent
ROOT = Path(__file__).resolve().parents[2]


def programs() -> list[str]:
    """The files of recipes that are a program: they say so by a ``PROGRAM``."""
    files = sorted((PLACE / "recipes").glob("*.py"))
    return [file.stem for file in files if "\nPROGRAM = " in file.read_text(encoding="utf-8")]


# The allowed order, from the ground up: the way of a weight, one line a package.
STOREYS: dict[str, tuple[dict[str, str], ...]] = {
    "analogsim": (
        {
            "errors": "what users catch: errors and warnings",
        },
        {
            "utils": "what knows nothing of hardware: text, times, files, module trees, tensors, batches",
        },
        {
            "noise": "the one door for randomness",
            "mapping": "weights to conductances and back; the blocks of crossbars that they lie in",
        },
        {"device": "effects, device models, their names, their files"},
        {
            "devices": "the built-in device models, one file a technology",
            "crossbar": "one array's periphery: wires, converters, the path of a signal, measured gains",
        },
        {
            "fit": "a device model from measurements",
            "draws": "one fresh draw of the device, as a training forward sees it",
        },
        {"layers": "matrices, and the modules that hold them"},
        {
            "chip": "one programmed chip: written, aged, saved, calibrated, compensated",
            "conversion": "from a digital network to its analog twin, and back",
            "training": "what training with noise is steered by: how much, its schedule, clipping",
        },
        {
            "evaluation": "scores over chips and times, what each part and layer costs, operations",
            "inspection": "what of a network runs analog, and the proof that it does",
        },
        {"integrations": "doors to other people's programs: their trainers, their files, their runs"},
        {"__init__": "the public names"},
        {
            "testing": "what device models and layers must hold, as tests for anybody",
            "recipes": "runnable programs",
        },
        {"__main__": "python -m analogsim"},
    ),
    "analogsim.recipes": (
        {
            "__init__": "nothing but a refusal of bare imports",
            "config": "settings: options, their files, what a study searches",
            "tasks": "data sets and networks",
        },
        {"tracking": "runs in MLflow, their links and pages; names of metrics"},
        {"training": "the loop, its processes, checkpoints, runs restored"},
        {
            "comparison": "runs found again, charts, the page",
            "study": "trials in a shared database, their runs, the final comparison",
        },
        {"judge": "a program: what a network loses on chips, which remedy is worth it, and the page of that"},
        dict.fromkeys(programs(), "a program of the command line, which imports no other one"),
        {"cli": "the command line"},
    ),
    "benchmarks": (
        {"__init__": "nothing", "harness": "what benchmarks share: networks, methods, peers, timing"},
        dict.fromkeys(
            (
                *(
                    "accuracy",
                    "adapters",
                    "chip",
                    "cluster",
                    "compensation",
                    "compiled",
                    "draws",
                    "faults",
                    "gains",
                    "growth",
                    "hardware",
                ),
                *(
                    "judge",
                    "memory",
                    "montecarlo",
                    "mutants",
                    "noise",
                    "outputs",
                    "peers",
                    "physics",
                    "pieces",
                    "precision",
                    "pretrained",
                    "published",
                    "robust",
                    "startup",
                    "storm",
                    "tracking",
                    "train",
                    "wires",
                    "zoo",
                ),
            ),
            "one benchmark each",
        ),
        {"gpu": "all that wants a card; of the others it takes chip"},
        {"__main__": "python -m benchmarks", "beside": "the ladder for networks that another tool has trained"},
    ),
}

# A factory goes by its technology, and so does its file: `from analogsim.devices import pcm` is the factory, as
# plug-ins know it, and what else is in the file is reached by `from analogsim.devices.pcm import PCMDrift`.
FACTORIES = {"pcm", "pcm_hermes", "reram_cmo", "reram_milo", "reram_wan2022", "sonos"}


def read(*names: str) -> dict[str, Module]:
    found = {"analogsim": PLACE, "benchmarks": ROOT / "benchmarks"}
    return read_tree(*(found[name] for name in names if found[name].is_dir()))


MODULES = read("analogsim", "benchmarks")
IMPORTS = all_imports(MODULES)


def room_of(module: str, house: str) -> str | None:
    """The room of a house that a module is in: a package or a file at its first look; None outside."""
    if module == house:
        return "__init__"
    return module.removeprefix(f"{house}.").partition(".")[0] if module.startswith(f"{house}.") else None


def rooms_of(house: str, modules: Mapping[str, Module]) -> set[str]:
    return {room for module in modules if (room := room_of(module, house)) is not None}


def between(house: str, imports: list[Import]) -> list[tuple[str, str, Import]]:
    """The imports from one room of a house to another."""
    found = []
    for one in imports:
        source, target = room_of(one.source, house), room_of(one.target, house)
        if source is not None and target is not None and source != target:
            found.append((source, target, one))
    return found


def running_up(house: str, storeys: tuple[dict[str, str], ...], imports: list[Import]) -> list[str]:
    """The imports between rooms that do not lead to a storey below."""
    number = {room: level for level, storey in enumerate(storeys) for room in storey}
    return [
        f"{one}: {target} (storey {number[target]}) is not below {source} (storey {number[source]})"
        for source, target, one in between(house, imports)
        if number[target] >= number[source]
    ]


def in_circles(imports: list[Import]) -> list[str]:
    """The imports between modules that lie in one circle."""
    group = {node: number for number, found in enumerate(circles(links(imports))) for node in found}
    return [str(one) for one in imports if one.source in group and group[one.source] == group.get(one.target)]


def links(imports: list[Import]) -> dict[str, set[str]]:
    return graph((one.source, one.target) for one in imports)


def test_modules_are_found_through_the_links() -> None:
    assert {"analogsim.devices.pcm", "analogsim.recipes.cli", "analogsim.noise.sources"} <= set(MODULES)
    assert len(IMPORTS) > len(MODULES)


@pytest.mark.parametrize("house", STOREYS)
def test_every_room_has_its_line(house: str) -> None:
    named = [room for storey in STOREYS[house] for room in storey]
    if house == "benchmarks" and house not in MODULES:
        pytest.skip("not in a checkout")
    assert sorted(named) == sorted(rooms_of(house, MODULES))


@pytest.mark.parametrize("house", STOREYS)
def test_no_import_runs_back_up(house: str) -> None:
    found = running_up(house, STOREYS[house], IMPORTS)
    assert not found, "\n".join(found)


def test_no_import_circle() -> None:
    found = in_circles(IMPORTS)
    assert not found, "\n".join(found)


def test_eight_floors_below_the_public_face() -> None:
    """The face of analogsim, and the rooms above it, are what users hold in their hands; errors are the ground.

    Every room raises them, and they import nothing.
    """
    assert not [one for one in IMPORTS if one.source == "analogsim.errors"]
    apart = ("__init__", "__main__", "testing", "recipes", "integrations", "errors")
    edges = [(a, b) for a, b, _ in between("analogsim", IMPORTS) if a not in apart and b not in apart]
    found = floors(without_circles(graph(edges)))
    assert max(found.values()) <= 8, found


@pytest.mark.parametrize("house", [name for name in MODULES if MODULES[name].is_package and "bench" not in name])
def test_sixteen_rooms_at_a_look(house: str) -> None:
    """But for doors, to other people too, and for recipes, a house of its own that hangs in analogsim by a link."""
    found = rooms_of(house, MODULES) - {"__init__", "__main__"}
    assert len(found - ({"recipes", "integrations"} if house == "analogsim" else set())) <= 16, sorted(found)


def test_no_package_hides_a_module() -> None:
    """``import package.module as name`` gives the module."""
    found = [one for one in hidden_modules(MODULES) if one.partition(",")[0].split(".")[-1] not in FACTORIES]
    assert not found, "\n".join(found)


def test_names_of_modules_have_no_underscore() -> None:
    found = [str(one.path) for one in MODULES.values() if is_own(one.path.stem)]
    assert not found, found


# What users are told goes by a class of analogsim.errors, which is one of these besides.
BUILT_IN = {
    *("AssertionError", "AttributeError", "ConnectionError", "FileNotFoundError", "ImportError", "KeyError"),
    *(
        "IndexError",
        "LookupError",
        "OSError",
        "PermissionError",
        "RuntimeError",
        "TimeoutError",
        "TypeError",
        "ValueError",
    ),
}
# Where Python, pytest or the operating system asks for one of theirs, or no code may be imported yet.
THEIRS = {
    "analogsim.devices": "ImportError",
    "analogsim.recipes": "ImportError",
    "analogsim.evaluation.workers": "RuntimeError",  # in place of a user's error that cannot be sent
    "analogsim.testing.device": "AssertionError",
    "analogsim.utils.files": "OSError PermissionError",
    "analogsim.recipes.study.folder": "AssertionError",  # "unreachable": a bug, if it is
    "analogsim.recipes.study.storages": "AssertionError",
}


def built_in_errors(tree: ast.Module) -> list[tuple[int, str]]:
    """Where an error of Python's own is made or raised."""
    found = []
    for node in ast.walk(tree):
        made = node.func if isinstance(node, ast.Call) else node.exc if isinstance(node, ast.Raise) else None
        if isinstance(made, ast.Name) and made.id in BUILT_IN:
            found.append((made.lineno, made.id))
    return found


def test_errors_are_of_our_own_classes() -> None:
    found = [
        f"{module.path}:{line} {name}: take the one of analogsim.errors that is this one besides"
        for module in MODULES.values()
        if module.name.startswith("analogsim")
        for line, name in built_in_errors(module.tree)
        if name not in THEIRS.get(module.name, "").split()
    ]
    assert not found, "\n".join(found)


def test_what_a_module_keeps_to_itself_nobody_imports() -> None:
    """A name with an underscore is its module's own: what another one needs has a plain name."""
    found = [str(one) for module in MODULES.values() for one in reached_into(module, MODULES)]
    assert not found, "\n".join(found)


def place_of_tests(module: Module) -> Path | None:
    """Where the tests of a module are; None for doors, and for what has no function: faces, errors."""
    if module.name.endswith("__main__") or not any(functions_of(module.tree)):
        return None
    if module.name.endswith("_private"):
        return Path("tests", "whole", "test_private_members.py")
    parts = module.name.removeprefix("analogsim.").split(".")
    if parts[0] == "benchmarks" and len(parts) == 2:  # it runs each of them
        return Path("tests", "whole", "test_benchmarks.py")
    return Path("tests", *(parts if module.is_package else parts[:-1]), f"test_{parts[-1]}.py")


def test_every_module_has_its_tests() -> None:
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("not in a checkout")
    places = {name: place for name, module in MODULES.items() if (place := place_of_tests(module)) is not None}
    found = {name: str(place) for name, place in places.items() if not (ROOT / place).is_file()}
    assert not found, "\n".join(f"{name} has no {found[name]}" for name in sorted(found))


def test_no_function_is_beyond_what_one_reads() -> None:
    found = [
        f"{module.path}:{function.lineno} {name}: {number}"
        for module in MODULES.values()
        for name, function in functions_of(module.tree)
        if (number := complexity(function)) > 15
    ]
    assert not found, "\n".join(found)


# The tools themselves, on packages made up for the purpose.

Made = Callable[[dict[str, str]], dict[str, Module]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A package ``p`` of these files, besides those it has."""

    def make(files: dict[str, str]) -> dict[str, Module]:
        for name, text in {"__init__.py": "", **files}.items():
            path = tmp_path / "p" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_tree(tmp_path / "p")

    return make


def test_imports_are_read_from_anywhere_in_the_text(made: Made) -> None:
    modules = made(
        {
            "a.py": "import torch\nimport p.b, p.c as x\n",
            "b.py": "def f():\n    from p.c import g, h\n    from p import d\n",
            "c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .sub.e import E\n",
            "d.py": "import importlib\nNAME = 'p.a'\ndef f():\n    importlib.import_module(NAME)\n",
            "sub/__init__.py": "from . import e\n",
            "sub/e.py": "from ..b import f\nNAME = 'p.a'\n",
        }
    )
    assert sorted(str(one) for one in all_imports(modules)) == [
        "p.a:2 imports p.b",
        "p.a:2 imports p.c",
        "p.b:2 imports p.c (g, h)",
        "p.b:3 imports p.d",
        "p.c:3 imports p.sub.e (E)",
        "p.d:2 imports p.a",
        "p.sub.e:1 imports p.b (f)",
        "p.sub:1 imports p.sub.e",
    ]


def test_links_are_followed(made: Made, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.py").write_text("from p import b\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "linked").symlink_to(other, target_is_directory=True)
    modules = made({"b.py": "from p.linked.a import c\n"})
    assert circles(links(all_imports(modules))) == [["p.b", "p.linked.a"]]


@pytest.mark.parametrize("way", ["{}", "def f():\n    {}", "from typing import *\nif TYPE_CHECKING:\n    {}"])
def test_a_circle_is_found(made: Made, way: str) -> None:
    files = {"a.py": "from p.b import x", "b.py": "from p.c import y\nfrom p.d import z", "d.py": ""}
    assert in_circles(all_imports(made({**files, "c.py": "from p.d import w"}))) == []
    assert in_circles(all_imports(made({**files, "c.py": way.format("from p.a import z")}))) == [
        "p.a:1 imports p.b (x)",
        "p.b:1 imports p.c (y)",
        f"p.c:{way.count(chr(10)) + 1} imports p.a (z)",
    ]


def test_an_import_back_up_is_found(made: Made) -> None:
    storeys = ({"low": ""}, {"one": "", "other": ""}, {"__init__": ""})
    files = {"__init__.py": "from p.one.a import f", "low.py": "", "other.py": "import p.low"}
    assert running_up("p", storeys, all_imports(made({**files, "one/a.py": "from p.low import g"}))) == []
    (found,) = running_up("p", storeys, all_imports(made({**files, "one/a.py": "from p.other import h"})))
    assert found == "p.one.a:1 imports p.other (h): other (storey 1) is not below one (storey 1)"
    files |= {"one/a.py": "from p.low import g", "low.py": "def f():\n    from p import f"}
    (found,) = running_up("p", storeys, all_imports(made(files)))
    assert found == "p.low:2 imports p (f): __init__ (storey 2) is not below low (storey 0)"


def test_floors_are_counted() -> None:
    edges = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"a", "e"}, "e": {"d"}}
    assert circles(edges) == [["d", "e"]]
    assert floors(without_circles(edges)) == {"a": 3, "b": 2, "c": 1, "d+e": 4}


def test_a_hidden_module_is_found(made: Made) -> None:
    modules = made({"__init__.py": "from p.audit import audit\nfrom p import b as b\nimport p.c\n", "audit.py": ""})
    assert [one.partition(",")[0] for one in hidden_modules(modules)] == ["p.audit"]


def test_what_is_reached_into_is_found(made: Made) -> None:
    files = {"a.py": "from p import b\nimport p.b as other\nother._x()\nb.y(b.__doc__, self._z)\n"}
    modules = made({**files, "b.py": "from p.a import f, _g\nfrom p.c import __version__\n", "c.py": "import p.a\n"})
    found = [str(one) for module in modules.values() for one in reached_into(module, modules)]
    assert found == ["p.a:3 imports p.b (_x)", "p.b:1 imports p.a (f, _g)"]


def test_a_built_in_error_is_found() -> None:
    text = "def f(x):\n    raise ValueError\n    return KeyError(x)\n    raise InvalidValueError(x) from TypeError(x)\n"
    assert built_in_errors(ast.parse(text)) == [(2, "ValueError"), (3, "KeyError"), (4, "TypeError")]
    text = "try:\n    pass\nexcept ValueError as e:\n    raise type(e)(1)\nisinstance(x, OSError)"
    assert built_in_errors(ast.parse(text)) == []


def test_complexity_is_that_of_the_function_alone() -> None:
    text = (
        "def f(x):\n"
        "    if x and x > 1 or x < 0:\n"
        "        return [y for y in x if y]\n"
        "    for z in x:\n"
        "        pass\n"
        "    else:\n"
        "        z = 1 if x else 2\n"
        "    def inner():\n"
        "        while x: pass\n"
    )
    assert {name: complexity(one) for name, one in functions_of(ast.parse(text))} == {"f": 9, "f.inner": 2}
