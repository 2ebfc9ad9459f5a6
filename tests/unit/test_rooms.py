"""The rooms: who may import whom, where vendors and SQL may stand, and that importing a module opens nothing."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.rooms import House

ROOT: Final = Path(__file__).parents[2]
HERE: Final = House(ROOT)
ROOMS: Final = ("schemas", "projections", "ingest", "processors", "query", "infra")


def test_a_room_leans_only_on_the_rooms_below_it() -> None:
    assert HERE.upward() == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Also not hidden in functions, or for types alone."""
    assert HERE.circles() == []


def test_vendors_stand_in_their_own_folders() -> None:
    assert HERE.misplaced_vendors() == []
    assert HERE.unknown_third_parties(frozenset(sys.stdlib_module_names)) == []


def test_sql_stands_under_adapters_and_in_query() -> None:
    assert HERE.misplaced_sql() == []


def test_commands_import_lazily() -> None:
    allowed = {*sys.stdlib_module_names, "typer"}
    wrong = [
        f"{HERE.place(each.file)}:{each.line}: {each.module}"
        for name, found in HERE.imports.items()
        if name.startswith("infra.cli.")
        for each in found
        if each.module != "schemas.roles"  # words that an option offers; it imports the standard library alone
        and not each.lazy
        and not each.typing_only
        and each.top not in allowed
        and not each.module.startswith("infra.cli")
    ]
    assert wrong == []


def _planted(tmp_path: Path, **files: str) -> House:
    """A house with these files; `__` stands for a slash."""
    for name, text in files.items():
        path = tmp_path / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return House(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "from infra.app.session import Session\n",
        "def ask():\n    from infra.app.session import Session\n    return Session\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from infra.app.session import Session\n",
        "from infra.app import session\n",
        "import infra.app.session\n",
    ],
)
def test_a_planted_import_upwards_is_found(tmp_path: Path, text: str) -> None:
    house = _planted(tmp_path, infra__adapters__disk=text, infra__app__session="class Session: ...\n")
    (found,) = house.upward()
    assert found.startswith("infra/adapters/disk.py:")
    assert found.endswith("infra.adapters may not import infra.app.session")


def test_the_demo_may_not_reach_into_the_product(tmp_path: Path) -> None:
    house = _planted(tmp_path, infra__demo__shop="from infra.app.session import x\n", infra__app__session="x = 1\n")
    assert len(house.upward()) == 1


def test_a_planted_circle_is_found_also_in_functions(tmp_path: Path) -> None:
    house = _planted(
        tmp_path,
        query__a="from query import b\n",
        query__b="def late():\n    from query.c import x\n    return x\n",
        query__c="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from query.a import y\nx = 1\n",
        query__d="from query.a import b\n",
    )
    assert house.circles() == [["query.a", "query.b", "query.c"]]


@pytest.mark.parametrize(
    ("place", "text"),
    [("query__sql", "import duckdb\n"), ("infra__app__x", "def f():\n    import psycopg2.extensions\n"),
     ("infra__adapters__postgres__x", "from boto3.session import Session\n")],
)  # fmt: skip
def test_a_planted_vendor_is_found(tmp_path: Path, place: str, text: str) -> None:
    assert len(_planted(tmp_path, **{place: text}).misplaced_vendors()) == 1


def test_a_planted_library_without_a_place_is_found(tmp_path: Path) -> None:
    house = _planted(tmp_path, query__x="import requests\n")
    assert house.unknown_third_parties(frozenset(sys.stdlib_module_names)) == ["query/x.py:1: requests has no place"]


@pytest.mark.parametrize(
    "text",
    [
        'Q = "select 1 from revisions"\n',
        'def f(n):\n    return f"select count(*) from t{n}"\n',
        'Q = "  INSERT INTO meta VALUES (1)"\n',
        'Q = """\nwith live as (select 1)\nselect * from live\n"""\n',
        'Q = "update meta set value = 1"\n',
        'Q = "lock table revisions in share mode"\n',
        'Q = "truncate meta"\n',
        'Q = "listen touchfold_changes"\n',
        'Q = "grant select on meta to analyst"\n',
        'Q = "WITH RECURSIVE t AS MATERIALIZED (select 1) select * from t"\n',
    ],
)
def test_planted_sql_is_found(tmp_path: Path, text: str) -> None:
    house = _planted(tmp_path, infra__app__x=f'"""select no. of rows from here: this is documentation."""\n{text}')
    assert len(house.misplaced_sql()) >= 1
    assert _planted(tmp_path / "b", infra__adapters__postgres__x=text).misplaced_sql() == []


def test_prose_is_no_sql(tmp_path: Path) -> None:
    text = 'A = "Select a customer from the list"\nB = "Update failed"\n'
    assert _planted(tmp_path, infra__drivers__x=text).misplaced_sql() == []


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
        for file in sorted((ROOT / room).rglob("*.py"))
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
