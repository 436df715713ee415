"""Import of the user's own code: a path ending in .py, or a module."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import zlib
from pathlib import Path
from types import ModuleType

_imported: set[str] = set()  # files, and folders of packages


def import_source(source: str) -> ModuleType:
    """Import 'path/to/file.py' or 'package.module'; raises whatever the import raises."""
    is_file = source.endswith(".py")
    module = _import_file(Path(source).resolve()) if is_file else _import_module(source)
    if module.__file__ is not None:
        folder, _, name = module.__file__.rpartition(os.sep)
        _imported.add(folder + os.sep if name == "__init__.py" else module.__file__)
    return module


def where_it_failed(error: BaseException) -> str | None:
    """Return 'file.py line 7', the last line of the user's own code that an exception came from, or None."""
    places = [
        f"{Path(frame.filename).name} line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(tuple(_imported))
    ]
    return places[-1] if places else None


def _import_file(path: Path) -> ModuleType:
    """Import a file, unless it was imported under any name: blocks cannot be registered twice."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get("__file__") == str(path):
            return module
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    name = f"{path.stem}_{zlib.crc32(str(path).encode()):08x}"  # unlike the plain name, hides no other module
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None  # a .py file always has a loader
    assert module_spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    """Import a module, also from the current directory, which Python does not search when a script runs."""
    here = str(Path.cwd())
    if here in sys.path:
        return importlib.import_module(name)
    sys.path.append(here)  # last, so that it hides no other module
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)
