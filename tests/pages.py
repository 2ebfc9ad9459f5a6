"""What pages mention of this repository (paths, modules, functions, tests, anchors), and what of it does not exist.

`tests/unit/test_docs_names.py` checks that nothing in our pages is missing, and that each planted name is found.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

TOPS: Final = ("schemas", "projections", "ingest", "processors", "query", "infra", "tests", "tools", "docs", "examples")
_TOP: Final = "|".join(TOPS)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_FENCE: Final = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_PATH: Final = re.compile(rf"(?<![\w./-])(?:{_TOP})/[\w./*-]*")
_DOTTED: Final = re.compile(rf"(?:{_TOP})(?:\.\w+)+")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_NAMED: Final = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


@dataclass(frozen=True)
class Repository:
    root: Path

    def missing(self, page: Path) -> list[str]:
        """What the page mentions that does not exist, each with the page's name."""
        text = page.read_text(encoding="utf-8")
        spans = _SPAN.findall(_FENCE.sub("", text))
        found = [path for path in self._paths(text) if not self._is_there(path)]
        found += [span for span in spans if _DOTTED.fullmatch(span) and not self.defines(span)]
        tests = [(self.root / file, name) for file, name in _NAMED.findall(text)]
        found += [f"{file.name}::{name}" for file, name in tests if file.is_file() and name not in self._names(file)]
        found += [link for link in _LINK.findall(text) if not self._leads(page, link)]
        return [f"{page.relative_to(self.root)}: {each}" for each in dict.fromkeys(found)]

    def _paths(self, text: str) -> Iterator[str]:
        for match in _PATH.finditer(text):
            yield match.group().rstrip(".-")

    def _is_there(self, path: str) -> bool:
        return any(self.root.glob(path.rstrip("/")))

    def _leads(self, page: Path, link: str) -> bool:
        """Whether the file of a relative link exists, and its heading if it names one."""
        if re.match(r"[a-z]+:", link):
            return True
        path, _, anchor = link.partition("#")
        file = (page.parent / path).resolve() if path else page
        return file.exists() and (not anchor or anchor in _anchors(file.read_text(encoding="utf-8")))

    # ------------------------------------------------------------ modules and functions

    def defines(self, dotted: str, *, function: bool = False) -> bool:
        """Whether `room.module`, `room.module.function` or `room.module.Class.method` exists.

        `function`: a module alone does not count.
        """
        module, names = self._module_of(dotted)
        if module is None:
            return False
        return ".".join(names) in self._names(module) if names else not function

    def _module_of(self, dotted: str) -> tuple[Path | None, list[str]]:
        parts = dotted.split(".")
        for length in range(len(parts), 0, -1):
            folder = self.root.joinpath(*parts[:length])
            if folder.with_suffix(".py").is_file():
                return folder.with_suffix(".py"), parts[length:]
            if folder.is_dir():
                return (folder, []) if length == len(parts) else (None, [])
        return None, []

    def _names(self, file: Path) -> set[str]:
        if file not in self._known:
            self._known[file] = set(_defined(ast.parse(file.read_text(encoding="utf-8")).body))
        return self._known[file]

    @cached_property
    def _known(self) -> dict[Path, set[str]]:
        return {}

    def packages(self) -> list[str]:
        """Folders of modules inside the rooms."""
        found = (each.parent for top in TOPS[:6] for each in (self.root / top).glob("**/*.py"))
        return sorted({f"{each.relative_to(self.root).as_posix()}/" for each in found})


def _defined(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{prefix}{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, f"{prefix}{node.name}.")


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub derives from headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).strip().replace(" ", "-") for each in headings}


def section(text: str, heading: str) -> str:
    """The text below a level 2 heading, up to the next one."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
