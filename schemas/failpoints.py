"""Named points between durable steps where a kill test ends the process. Unarmed, each costs one dict look-up.

`infra.app.bootstrap` arms them from TOUCHFOLD_FAILPOINT, only with TOUCHFOLD_TEST=1.
"""

import os
import signal
from typing import Final

NAMES: Final = frozenset(
    {
        "door.before_append",
        "door.after_append",
        "vault.before_commit",
        "vault.after_commit",
        "forms.stepped",
        "log.before_reserve",
        "log.before_commit",
        "log.after_commit",
        "fold.before_commit",
        "fold.after_commit",
        "decide.before_commit",
        "decide.after_commit",
        "feed.after_number",
        "archive.before_rename",
        "archive.after_rename",
        "archive.after_manifest",
        "archive.merge_written",
        "archive.merge_put",
        "archive.merge_listed",
        "archive.rewrite_written",
        "archive.rewrite_put",
        "archive.rewrite_listed",
        "archive.retired",
        "archive.manifest_written",
        "archive.manifest_renamed",
        "erase.after_fact",
        "erase.after_tokens",
        "erase.after_epoch",
        "erase.after_vault",
        "erase.after_projections",
        "erase.after_ledger",
        "erase.after_clean",
        "erase_many.after_chunk",
        "swap.before_commit",
        "swap.after_commit",
        "import.after_append",
        "backup.archive_copied",
        "backup.part_put",
        "backup.finished",
        "restore.unpacked",
        "rotate.begun",
        "rotate.stepped",
        "publish.after_ack",
        "inbox.after_append",
    }
)

_armed: dict[str, int] = {}


def arm(name: str, hits: int = 1) -> None:
    """End this process with SIGKILL at the `hits`-th passage of a point. Raises ValueError for an unknown name."""
    if name not in NAMES:
        raise ValueError(f"no failpoint {name!r}; the failpoints are {', '.join(sorted(NAMES))}")
    _armed[name] = hits


def failpoint(name: str) -> None:
    """Passes, unless armed."""
    if not _armed or name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
