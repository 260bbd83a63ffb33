"""The architecture: who may import whom, and what a process may not load."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ssl_core.config import KINDS
from ssl_core.config.methods import METHODS

ROOT = Path(__file__).parent.parent
ROOMS = ("ssl_core", "service", "api", "worker", "twoviews")
# The rooms of ssl_core from the ground up: a room imports those on the floors below it and itself.
FLOORS = (
    "events errors rng inputs",
    "device files compiler",
    "checksums",
    "config recipes",
    "data distributed",
    "augment models reports",
    "serialization",
    "methods evaluation pretrained",
    "export embedding",
    "optim",
    "training",
    "run",
    "__main__",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms.split()}
MOST_FILES = 20  # of a folder
MOST_LINES = 200  # of a class
# Free of torch and numpy.
PLAIN = frozenset({f"ssl_core.{room}" for room in ("checksums", "config", "errors", "events", "files", "recipes")})
MAY_IMPORT = {
    "ssl_core": frozenset(),
    "service": PLAIN,
    "api": frozenset({"service"}) | PLAIN,
    "worker": frozenset({"service", "ssl_core"}),
    "twoviews": frozenset(),
}
HEAVY = ("torch", "numpy", "PIL", "pyarrow", "sklearn", "matplotlib")
BLOCK = """
import importlib.abc, sys
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise AssertionError("this process imports " + name)
sys.meta_path.insert(0, Wall())
for name in {modules!r}:
    __import__(name)
"""


def imports(file: Path) -> set[str]:
    """The modules that the file names in an import, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed(module: str, room: str) -> bool:
    own = (room, *MAY_IMPORT[room])
    return module.split(".")[0] not in ROOMS or any(module == name or module.startswith(name + ".") for name in own)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_plan_lets_it(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    wrong = {(str(file.relative_to(ROOT)), name) for file in files for name in imports(file) if not allowed(name, room)}
    assert wrong == set()


def test_the_check_would_see_a_forbidden_import():
    assert not allowed("worker.trainer.supervisor", "api")
    assert not allowed("ssl_core.training.loop", "api")
    assert not allowed("service.jobs", "twoviews")
    assert allowed("ssl_core.config.Pretrain", "api")


def needed(file: Path) -> set[str]:
    """The modules of the core that have to be there before the file's own first line has run."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in inner if (ROOT / f"{name.replace('.', '/')}.py").is_file()} or {str(node.module)}
    return {name for name in found if name.startswith("ssl_core.")}


def climbing(room: str, modules: set[str]) -> set[str]:
    """Those of the modules that a file in that room of the core may not import: neither the room's own nor below it."""
    rooms = {name: name.split(".")[1] for name in modules if name.startswith("ssl_core.")}
    return {name for name, other in rooms.items() if other != room and FLOOR[other] >= FLOOR[room]}


def test_a_room_of_the_core_imports_only_rooms_below_it():
    core = ROOT / "ssl_core"
    files = [file for file in core.rglob("*.py") if file != core / "__init__.py"]
    wrong = {str(file): climbing(file.relative_to(core).parts[0].removesuffix(".py"), imports(file)) for file in files}
    assert {file: names for file, names in wrong.items() if names} == {}
    assert {file.relative_to(core).parts[0].removesuffix(".py") for file in files} == FLOOR.keys()


def test_the_floors_would_see_an_import_upward_or_sideways():
    assert climbing("data", {"ssl_core.training.loop", "ssl_core.data.decode", "ssl_core.rng"}) == {
        "ssl_core.training.loop"
    }
    assert climbing("methods", {"ssl_core.evaluation.knn", "ssl_core.models.ema"}) == {"ssl_core.evaluation.knn"}


@pytest.mark.parametrize("top", [*ROOMS, "migrations", "benchmarks", "tests"])
def test_no_folder_holds_too_many_files(top):
    folders = [ROOT / top, *(path for path in (ROOT / top).rglob("*") if path.is_dir())]
    assert [str(path) for path in folders if len([*path.glob("*.py")]) > MOST_FILES] == []


@pytest.mark.parametrize("top", ROOMS)
def test_no_class_is_too_long(top):
    lengths = {
        f"{file.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for file in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert lengths
    assert {name: length for name, length in lengths.items() if length >= MOST_LINES} == {}


def asks_for_a_kind(node: ast.AST) -> bool:
    """Whether the expression is an `isinstance` with a kind's class, or compares something with a kind's name."""
    if isinstance(node, ast.Compare):
        compared = [node.left, *node.comparators]
        return any(isinstance(part, ast.Constant) and part.value in KINDS for part in compared)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass"):
        named = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
        return bool(named & {config.__name__ for config in KINDS.values()})
    return False


def test_a_kind_states_what_it_is_so_that_no_other_code_asks():
    files = [file for top in ROOMS for file in (ROOT / top).rglob("*.py") if "config" not in file.parts]
    asking = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if asks_for_a_kind(node)
    ]
    assert asking == []


def test_the_question_for_a_kind_would_be_seen():
    for code in ('job.kind == "pretrain"', 'kind in ("a", "b") or "distill" != kind', "isinstance(x, Distill | None)"):
        assert any(asks_for_a_kind(node) for node in ast.walk(ast.parse(code))), code
    assert not any(asks_for_a_kind(node) for node in ast.walk(ast.parse('job.kind == "ingest"')))


def test_any_module_of_the_core_may_be_the_first_to_be_imported():
    files = (ROOT / "ssl_core").rglob("*.py")
    graph = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    order = TopologicalSorter({name: needed(file) for name, file in graph.items()})
    assert len([*order.static_order()]) >= len(graph)  # raises CycleError


@pytest.mark.parametrize(
    ("modules", "blocked"),
    [
        (("ssl_core.config", "ssl_core.events", "ssl_core.recipes"), (*HEAVY, "fastapi", "sqlalchemy", "celery")),
        (("service.jobs", "service.datasets", "service.doorbell", "service.__main__"), (*HEAVY, "fastapi")),
        (("api.app",), HEAVY),
        (("worker.app", "worker.tasks", "worker.trainer.supervisor", "worker.keeper"), (*HEAVY, "fastapi", "api")),
        (("ssl_core.run",), ("fastapi", "sqlalchemy", "celery", "service", "api", "worker")),
        (("twoviews", "twoviews.cli.main"), (*HEAVY, "pydantic", "fastapi", "sqlalchemy", "celery", *ROOMS[:4])),
    ],
    ids=("config", "service", "api", "worker", "core", "client"),
)
def test_a_process_starts_without_what_it_must_not_load(modules, blocked):
    code = BLOCK.format(modules=modules, blocked=frozenset(blocked))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def sources(matches) -> set[str]:
    """The files of which `matches` is true; recipes name methods because they use them."""
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py") if "recipes" not in file.parts]
    return {str(file.relative_to(ROOT)) for file in files if matches(file)}


def strings(file: Path) -> set[object]:
    return {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}


# But for SimCLR, which examples name, and which google's checkpoints and cards of format 1 are of.
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"simclr"}))
def test_a_method_is_one_file_one_config_class_and_one_line(name):
    assert (ROOT / f"ssl_core/methods/{name}.py").is_file()
    assert sources(lambda file: name in strings(file)) == {"ssl_core/config/methods.py", "ssl_core/methods/__init__.py"}
    own = f"ssl_core.methods.{name}."
    assert sources(lambda file: any(used.startswith(own) for used in imports(file))) == {"ssl_core/methods/__init__.py"}


def syncs_a_path(node: ast.AST) -> bool:
    """Whether it is a function that opens a path by `os.open` and calls `os.fsync`."""
    called = {ast.unparse(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}
    return isinstance(node, ast.FunctionDef) and called >= {"os.open", "os.fsync"}


def test_a_path_is_made_durable_by_one_function():
    """The client has its own: it imports nothing of the service and also runs where a folder cannot be opened."""
    found = sources(lambda file: any(syncs_a_path(node) for node in ast.walk(ast.parse(file.read_text()))))
    assert found == {"ssl_core/files.py", "twoviews/download.py"}
