"""Modules that shadow others: a working directory with a file for every top-level name that a process could import."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

IMPORTED = "imported.txt"
CODE = """import _io
_io.open({log!r}, "a").write(__name__ + "\\n")
raise RuntimeError("imported from the working directory")
"""


def fill(folder: Path) -> Path:
    """Fill the folder, and return the file in which its modules record that they were imported."""
    log = folder / IMPORTED
    folder.mkdir(parents=True, exist_ok=True)
    code = CODE.format(log=str(log))
    for name in {*sys.stdlib_module_names, *packages_distributions()}:
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    for name in ("api", "service"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code, encoding="utf-8")
    return log
