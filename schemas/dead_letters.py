"""Dead letters: what could not be taken or folded, set aside whole under a seal, with why and where."""

from collections.abc import Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Final, NamedTuple

from schemas.ports import Sealer
from schemas.waits import SET_ASIDE, UNREADABLE

FOLD: Final = "fold"  # the stage of records that are in the log already
IMPORT: Final = "import"
INBOX: Final = "inbox"
REUSED: Final = "id_reused"  # rules
INTERNAL: Final = "internal"  # an error of ours keeps an item, or a message of the inbox, out of the log
RETRY: Final = "touchfold dead-letters retry ID"


class DeadLetter(NamedTuple):
    """One item or record set aside. `sealed`: AES-256-GCM under `seal_key`, bound to `id`; it opens to JSON.

    The JSON of stage "door" is `{"item", "sent_at", "received_at", "historical", "trusted_clock"}`, or `{"bytes":
    base64}` where it was no JSON. `tokens`: whose data is inside, as far as known; without any, `seal_key` is the
    token of a daily key that lives 30 days.
    """

    id: bytes  # 16; a hash of the content, so that a repeat is one row
    stage: str  # "door", "fold", …
    rule: str
    path: str  # dotted; "" for the whole
    reason: str  # never a person's data
    source: str
    received_at: datetime
    event_id: bytes | None  # the event key where the sender gave a message id
    tokens: tuple[bytes, ...]
    seal_key: bytes
    sealed: bytes


def dead_letter_id(secret: bytes, stage: str, source: str, content: bytes) -> bytes:
    """The 128-bit id of a dead letter: a keyed hash (the vault's key), for contents may be guessable."""
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
    "correct what the reason names where it is sent from, and send it again from there, also under the same message "
    "id: nothing of it was counted. A retry sends it as it came, which this build refuses again"
)
_NEVER: Final = (
    "this one does not, and neither a retry nor a rebuild can change that. If it is another event, give it an id of "
    "its own where it comes from (the sender's messageId, a line's id) and send or import it again. If it corrects the "
    "first, send the correction as an event with an id of its own. touchfold dead-letters show ID shows what it says; "
    "there is nothing else to do here"
)
_REMEDIES: Final = {
    ("door", INTERNAL): f"read the error in the log of the process, upgrade, then: {RETRY}",
    (INBOX, INTERNAL): f"read the error in the log of the process, upgrade, then: {RETRY}",
    (INBOX, "invalid_write_key"): (
        f"correct the producer's write key; say whose this message is: {RETRY} --source NAME"
    ),
    (INBOX, "source_off"): f"switch the source on (touchfold source set NAME --enable), then: {RETRY}",
    (IMPORT, INTERNAL): "read the error in the log of the command, upgrade, and import the file again",
    (IMPORT, REUSED): f"the first line with this id counts, {_NEVER}",
    (FOLD, REUSED): f"the event that came first under this message id counts, {_NEVER}",
    (FOLD, UNREADABLE): (
        "if folding it failed, the worker's log has the error; if it is no event, somebody writes into the log past "
        "the door: have that sent to the door. Its bytes stay in the log; a build that can read it applies it by: "
        f"{RETRY}"
    ),
    (FOLD, SET_ASIDE): (
        f"upgrade to the build that wrote it, or restore what the reason names; then it is applied by: {RETRY}"
    ),
}


def remedy(stage: str, rule: str) -> str:
    """What to do about a letter. For people; true of every letter of this stage and rule."""
    if stage == IMPORT:
        line = "correct the line in its file, or the mapping, and import the file again: what is in already counts once"
        return _REMEDIES.get((stage, rule), line)
    return _REMEDIES.get((stage, rule), _CORRECTED)


def remedies(letters: Iterable[tuple[str, str]]) -> list[str]:
    """`rule (stage): what to do`, once for each (stage, rule) of these letters, in their order."""
    return [f"{rule} ({stage}): {remedy(stage, rule)}" for stage, rule in dict.fromkeys(letters)]
