"""The table of docs/sdks.md, made from a run: which SDK and version, which calls, what a kill in the middle did."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
SDKS: Final = {  # by the name of its sender: package, how it was run
    "segment_snippet": ("@segment/analytics-next", "the script from this server, by Segment's own snippet"),
    "our_snippet": ("@segment/analytics-next", "the script from this server, by the snippet of *Sources*"),
    "segment_npm": ("@segment/analytics-next", "npm, bundled, in Chromium"),
    "rudder_js": ("@rudderstack/analytics-js", "npm, bundled, in Chromium"),
    "jitsu_js": ("@jitsu/js", "npm, bundled, in Chromium"),
    "jitsu_node.mjs": ("@jitsu/js", "Node"),
    "segment_node.mjs": ("@segment/analytics-node", "Node"),
    "rudder_node.mjs": ("@rudderstack/rudder-sdk-node", "Node"),
    "segment_python.py": ("segment-analytics-python", "Python"),
    "rudder_python.py": ("rudder-sdk-python", "Python"),
}
HEAD: Final = "| SDK | how | calls in the log as they were told | sent around a kill -9 | in the log, each once |"


def versions() -> dict[str, str]:
    """The pinned version of each package."""
    found: dict[str, str] = dict(json.loads((_HERE / "package.json").read_text())["dependencies"])
    found.update(re.findall(r"^([\w-]+)==(\S+)", (_HERE / "requirements.txt").read_text(), re.MULTILINE))
    return found


class Table:
    """What has been found so far."""

    def __init__(self) -> None:
        self._told: dict[str, Sequence[str]] = {}
        self._killed: dict[str, tuple[int, int]] = {}

    def told(self, which: str, calls: Sequence[str]) -> None:
        self._told[which] = calls

    def killed(self, which: str, sent: int, found: int) -> None:
        self._killed[which] = (sent, found)

    def text(self) -> str:
        lines = [HEAD, "|---|---|---|---|---|"]
        known = versions()
        for which, (package, how) in SDKS.items():
            sent, found = self._killed.get(which, ("not run", "not run"))
            calls = ", ".join(self._told.get(which, ("not run",)))
            lines.append(f"| `{package}` {known[package]} | {how} | {calls} | {sent} | {found} |")
        return "\n".join(lines) + "\n"
