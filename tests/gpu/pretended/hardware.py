"""The hardware: `guard.cpp`, compiled by the machine's C++ compiler and loaded before torch is imported."""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
_SOURCE = Path(__file__).with_name("guard.cpp")


def find_compiler() -> str | None:
    """Return the path of a C++ compiler, if there is one."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def load(library: Path | None = None) -> None:
    """Load the guard, a file of `build`; compiled now, into a temporary folder, where none is given.

    Nothing of torch may have been imported: it looks for CUDA once.
    """
    assert "torch" not in sys.modules, "the guard has to be loaded before torch is imported"
    with tempfile.TemporaryDirectory(prefix="twoviews-gpu-") as folder:
        built = library or build(Path(folder))
        for path in (_torch_library(), built):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def build(folder: Path) -> Path:
    """Compile the guard against torch's headers, and return the library. Raises RuntimeError without a compiler."""
    compiler = find_compiler()
    if compiler is None:
        raise RuntimeError(f"The pretended GPU needs a C++ compiler: one of {', '.join(COMPILERS)}.")
    home, library = _torch_home(), folder / "guard.so"
    options = ["-std=c++20", "-O0", "-shared", "-fPIC", f"-I{home / 'include'}"]
    linked = [f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", "-lc10", "-ltorch_cpu"]
    subprocess.run([compiler, *options, str(_SOURCE), "-o", str(library), *linked], check=True)
    return library


def _torch_library() -> Path:
    return next((_torch_home() / "lib").glob("libtorch_cpu.*"))


def _torch_home() -> Path:
    """The folder of the installed torch, found without importing it."""
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent
