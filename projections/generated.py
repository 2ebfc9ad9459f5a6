"""Source of our own making: lines, and the namespace they run in.

Literals of users enter it as named constants of the namespace, never as text.
"""

from collections.abc import Callable, Mapping
from typing import Any

from projections.days import LocalDays


class Source:
    """Generated lines, and the namespace of constants they run in."""

    def __init__(self, namespace: Mapping[str, Any], days: LocalDays) -> None:
        self.days = days
        self.lines: list[str] = []
        self.namespace: dict[str, Any] = dict(namespace)

    def add(self, depth: int, *lines: str) -> None:
        """Append lines, indented."""
        self.lines.extend("    " * depth + line for line in lines)

    def constant(self, value: object) -> str:
        """A name for a value in the namespace."""
        name = f"K{len(self.namespace)}"
        self.namespace[name] = value
        return name

    def use(self, function: Callable[..., Any], name: str = "") -> str:
        """The name by which generated lines call a function, its own unless given."""
        name = name or function.__name__
        self.namespace[name] = function
        return name

    def run(self, label: str) -> dict[str, Any]:
        """Compile and run; the namespace with what it defines. The source is ours: see the module's head."""
        code = compile("\n".join(self.lines) + "\n", f"<generated {label}>", "exec")
        exec(code, self.namespace)  # our own generated source, users' data only as constants
        return self.namespace
