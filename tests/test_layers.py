"""Holds the layering of the project: who may import whom, no cycles, thin scripts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module imports only from its own package and from the rows above its own.
ROWS = [
    ("nets",),
    ("utils.cli",),
    ("utils.vision",),
    ("utils.data", "utils.metrics", "utils.weights"),
    ("utils.formats",),
    ("utils.inference",),
    ("utils.training", "utils.export", "utils.tools"),
    ("utils.compare", "utils.app"),
]
SCRIPTS = len(ROWS)  # the last row: train.py and its siblings, benchmarks
PROJECT = {"nets", "utils", "benchmarks", *(path.stem for path in ROOT.glob("*.py"))}


def read_sources() -> dict[str, str]:
    """Return the source of every module of the project by dotted name."""
    paths = [*ROOT.glob("*.py")]
    for folder in ("nets", "utils", "benchmarks"):
        paths += (ROOT / folder).rglob("*.py")
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {name.removesuffix(".__init__"): path.read_text(encoding="utf-8") for path, name in names.items()}


def imports_of(source: str, modules: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield (dotted name, whether inside a function) for each import of a source."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name in modules else str(node.module)), id(node) in inside


def place_of(module: str) -> tuple[int, str]:
    """Return the row of a module and the package that answers for it."""
    found = (
        SCRIPTS,
        module.split(".")[0],
    )  # the scripts do not import each other; benchmarks are one package
    longest = ""
    for row, packages in enumerate(ROWS):
        for package in packages:
            if (module == package or module.startswith(package + ".")) and len(package) > len(longest):
                found, longest = (row, package), package
    return found


def find_faults(sources: dict[str, str]) -> list[str]:
    """List every import that breaks the layering."""
    faults = []
    for module, source in sources.items():
        row, package = place_of(module)
        for imported, in_function in imports_of(source, sources):
            if imported.split(".")[0] not in PROJECT:
                continue
            other_row, other_package = place_of(imported)
            if in_function and row < SCRIPTS:  # scripts import their heavy half after parsing
                faults.append(f"{module} imports {imported} inside a function")
            if other_row > row or (other_row == row and other_package != package):
                faults.append(f"{module} must not import {imported}")
    return faults


def find_cycle(sources: dict[str, str]) -> list[str]:
    """Return the modules of an import cycle, or nothing."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done or module not in sources:
            return []
        for imported, _ in imports_of(sources[module], sources):
            if imported != module and (cycle := visit(imported, [*way, module])):
                return cycle
        done.add(module)
        return []

    for module in sources:
        if cycle := visit(module, []):
            return cycle
    return []


def reachable_from(module: str, sources: dict[str, str]) -> set[str]:
    """Return all that a module imports, directly or through the project's modules."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for imported, _ in imports_of(sources.get(waiting.pop(), ""), sources):
            if imported not in found:
                found.add(imported)
                waiting.append(imported)
    return found


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({}, None),
        ({"nets.a": "import torch", "utils.b": "from nets.a import c"}, None),
        ({"nets.a": "import utils.cli.b", "utils.cli.b": ""}, "nets.a must not import utils.cli.b"),
        ({"nets.a": "from utils.cli import b", "utils.cli.b": ""}, "nets.a must not import utils.cli.b"),
        ({"utils.cli.a": "import utils.vision.b"}, "utils.cli.a must not import utils.vision.b"),
        ({"utils.data.a": "import utils.data.b, utils.vision.c"}, None),
        ({"utils.data.a": "import utils.metrics.b"}, "utils.data.a must not import utils.metrics.b"),
        (
            {"utils.inference.a": "import utils.training.b"},
            "utils.inference.a must not import utils.training.b",
        ),
        ({"train": "import predict"}, "train must not import predict"),
        ({"train": "def f():\n    import nets.a"}, None),
        ({"utils.data.a": "def f():\n    import nets.a"}, "utils.data.a imports nets.a inside a function"),
    ],
)
def test_rules_find_what_they_forbid(sources, fault, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PROJECT", {"nets", "utils", "train", "predict"})
    assert find_faults(sources) == ([fault] if fault else [])


def test_cycle_is_found():
    sources = {"utils.a": "import utils.b", "utils.b": "import utils.c", "utils.c": "import utils.a"}
    assert find_cycle({}) == []
    assert find_cycle(sources) == ["utils.a", "utils.b", "utils.c", "utils.a"]


def test_project_keeps_the_layers():
    assert find_faults(read_sources()) == []


def test_project_has_no_import_cycle():
    assert find_cycle(read_sources()) == []


def test_nets_need_only_torch():
    sources = read_sources()
    third_party = {
        "albumentations",
        "cv2",
        "numpy",
        "PIL",
        "yaml",
        "tqdm",
        "pycocotools",
        "argparse",
        "scipy",
    }
    nets = [name for name in sources if name.split(".")[0] == "nets"]
    tops = {imported.split(".")[0] for name in nets for imported, _ in imports_of(sources[name], sources)}
    assert not tops & third_party


@pytest.mark.parametrize("script", ["evaluate", "export", "predict"])
def test_albumentations_is_only_for_training(script):
    assert "albumentations" not in reachable_from(script, read_sources())


def test_only_augmentation_imports_albumentations():
    sources = read_sources()
    users = [
        module
        for module, source in sources.items()
        if any(name.split(".")[0] == "albumentations" for name, _ in imports_of(source, sources))
    ]
    names = ("augmentation", "augmentation_check", "custom_augmentation")
    assert set(users) <= {f"utils.data.{name}" for name in names}


@pytest.mark.parametrize("script", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_scripts_are_thin(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 150
