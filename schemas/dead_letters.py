"""Dead letters: items and records that could not be accepted or folded, kept whole and sealed, with the reason."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from schemas.placeholders import Blocked
from schemas.ports import Sealer
from schemas.waits import SET_ASIDE, UNREADABLE

FOLD: Final = "fold"  # the stage of records that are already in the log
IMPORT: Final = "import"
INBOX: Final = "inbox"
REUSED: Final = "id_reused"  # rules
INTERNAL: Final = "internal"  # our own error kept an item or an inbox message out of the log
RETRY: Final = "touchfold dead-letters retry ID"


class DeadLetter(NamedTuple):
    """One item or record set aside. `sealed`: AES-256-GCM under `seal_key`, bound to `id`; it opens to JSON.

    The JSON of stage "door" is `{"item", "sent_at", "received_at", "historical", "trusted_clock"}`, or `{"bytes":
    base64}` if the item was not JSON. `tokens`: the people whose data is inside, as far as known; if there are none,
    `seal_key` is the token of a daily key that lives 30 days.
    """

    id: bytes  # 16; a hash of the content, so that a repeat adds no row
    stage: str  # "door", "fold", …
    rule: str
    path: str  # dotted; "" for the whole item
    reason: str  # never contains personal data
    source: str
    received_at: datetime
    event_id: bytes | None  # the event key, if the sender gave a message id
    tokens: tuple[bytes, ...]
    seal_key: bytes
    sealed: bytes


class DeadLetterStore(Protocol):
    """Stores dead letters and refused event keys; durable when `insert` returns. A repeat adds no row."""

    def insert(self, letters: Sequence[DeadLetter], suppressed: Sequence[bytes], at: datetime) -> None: ...

    def count_blocked(self, blocked: Sequence[Blocked], at: datetime) -> None:
        """Count ids that named nobody, for people: a crash may lose the last second's, a repeat counts again.

        Raises nothing: events are stored by now, and an error here would have their sender repeat them.
        """


def dead_letter_id(secret: bytes, stage: str, source: str, content: bytes) -> bytes:
    """The 128-bit id of a dead letter: a hash keyed with the vault's key, because contents may be guessable."""
    head = f"{stage}\0{source}\0".encode()
    return blake2b(head + content, digest_size=16, key=secret, person=b"tf-dead-letter").digest()


def seal_dead_letter(
    sealer: Sealer,
    id_: bytes,
    stage: str,
    rule: str,
    path: str,
    reason: str,
    source: str,
    received_at: datetime,
    event_id: bytes | None,
    tokens: tuple[bytes, ...],
    seal_key: bytes,
    plain: bytes,
) -> DeadLetter:
    """A dead letter around `plain`, sealed under `seal_key` (one of `tokens`, or a daily key)."""
    sealed = sealer.seal(seal_key, plain, id_)
    return DeadLetter(id_, stage, rule, path, reason, source, received_at, event_id, tokens, seal_key, sealed)


_CORRECTED: Final = (
    "fix what the reason names at the sender and send it again from there; the same message id is fine, because "
    "nothing was counted. A retry sends it unchanged, and this build would refuse it again"
)
_NEVER: Final = (
    "this one does not, and neither a retry nor a rebuild can change that. If it is a different event, give it its own "
    "id at the source (the sender's messageId, a line's id) and send or import it again. If it corrects the first, "
    "send the correction as an event with its own id. touchfold dead-letters show ID shows its contents; there is "
    "nothing else to do here"
)
_REMEDIES: Final = {
    ("door", INTERNAL): f"find the error in the process's log, upgrade, then: {RETRY}",
    (INBOX, INTERNAL): f"find the error in the process's log, upgrade, then: {RETRY}",
    (INBOX, "invalid_write_key"): (
        f"fix the producer's write key, then say which source this message belongs to: {RETRY} --source NAME"
    ),
    (INBOX, "source_off"): f"switch the source on (touchfold source set NAME --enable), then: {RETRY}",
    (IMPORT, INTERNAL): "find the error in the command's log, upgrade, and import the file again",
    (IMPORT, REUSED): f"the first line with this id counts, {_NEVER}",
    (FOLD, REUSED): f"the event that came first under this message id counts, {_NEVER}",
    (FOLD, UNREADABLE): (
        "if folding it failed, the worker's log has the error; if it is not an event, something is writing to the log "
        "directly: make it send to the door instead. The bytes stay in the log; once a build can read them, apply them "
        "with: "
        f"{RETRY}"
    ),
    (FOLD, SET_ASIDE): (
        f"upgrade to the build that wrote it, or restore what the reason names; then apply it with: {RETRY}"
    ),
}


def remedy(stage: str, rule: str) -> str:
    """What to do about a dead letter of this stage and rule, as a sentence for people."""
    if stage == IMPORT:
        line = "fix the line in its file, or the mapping, and import the file again; lines already imported count once"
        return _REMEDIES.get((stage, rule), line)
    return _REMEDIES.get((stage, rule), _CORRECTED)


def remedies(letters: Iterable[tuple[str, str]]) -> list[str]:
    """`rule (stage): what to do`, once for each (stage, rule), in order of first appearance."""
    return [f"{rule} ({stage}): {remedy(stage, rule)}" for stage, rule in dict.fromkeys(letters)]
