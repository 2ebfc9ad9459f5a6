"""Every error we raise on purpose, and what the processing loop does about it. No other module defines any.

A message says what is wrong, where, and what to do next. It never contains personal data.
"""

from collections.abc import Sequence
from enum import Enum
from typing import ClassVar, NamedTuple


class Disposition(Enum):
    """What the caller's loop does with an error of this class."""

    REJECT = "reject"  # the sender's mistake: 4xx, store nothing
    DEAD_LETTER = "dead_letter"  # unreadable or unusable: set it aside whole, carry on
    RETRY = "retry"  # a backend is away: same batch again, after a wait
    STOP = "stop"  # our fault: commit nothing, exit loudly
    WAIT = "wait"  # a good record that cannot be read yet: its partition waits, the others go on


class Problem(NamedTuple):
    """One problem: where (dotted path, "" for the whole) and why."""

    path: str
    reason: str


class TouchfoldError(Exception):
    """Base of every error raised on purpose. `code` is stable, for logs and APIs; `status` is the HTTP status."""

    code: ClassVar[str] = "internal"
    disposition: ClassVar[Disposition] = Disposition.STOP
    status: ClassVar[int] = 500

    def __init__(self, message: str, problems: Sequence[Problem] = (), retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, object]:
        """The error body that the door and the API share."""
        return {
            "success": False,
            "code": self.code,
            "message": self.message,
            "errors": [problem._asdict() for problem in self.problems],
        }


class BadRequest(TouchfoldError):
    """The request cannot be accepted; `errors` say where and why."""

    code, disposition, status = "bad_request", Disposition.REJECT, 400


class InvalidJson(BadRequest):
    """The body is not JSON."""

    code = "invalid_json"


class InvalidWriteKey(TouchfoldError):
    """The write key is missing, unknown or revoked."""

    code, disposition, status = "invalid_write_key", Disposition.REJECT, 401


class Unauthorized(TouchfoldError):
    """The token is missing, unknown or revoked."""

    code, disposition, status = "unauthorized", Disposition.REJECT, 401


class Forbidden(TouchfoldError):
    """The token's role may not do this."""

    code, disposition, status = "forbidden", Disposition.REJECT, 403


class NotFound(TouchfoldError):
    """There is no such thing."""

    code, disposition, status = "not_found", Disposition.REJECT, 404


class SourceOff(NotFound):
    """The source is switched off; it can be switched on in its settings."""

    code = "source_off"


class Erased(TouchfoldError):
    """The profile or identifier once existed and was erased."""

    code, disposition, status = "erased", Disposition.REJECT, 410


class RequestTimeout(TouchfoldError):
    """The request did not arrive in time."""

    code, disposition, status = "request_timeout", Disposition.REJECT, 408


class HeaderTooLarge(TouchfoldError):
    """The request's header is over 32 KiB."""

    code, disposition, status = "header_too_large", Disposition.REJECT, 431


class TooLarge(TouchfoldError):
    """The body, the batch or an event is over its limit."""

    code, disposition, status = "too_large", Disposition.REJECT, 413


class TooMany(TouchfoldError):
    """More requests than the source, caller or address may send; `Retry-After` says when to try again."""

    code, disposition, status = "too_many_requests", Disposition.REJECT, 429


class SettingsInvalid(TouchfoldError):
    """A setting or a file of settings is wrong; the message names the key."""

    code, disposition, status = "settings_invalid", Disposition.REJECT, 400


class DefinitionsInvalid(TouchfoldError):
    """Definitions or a mapping that cannot be used; `problems` hold path and reason."""

    code, disposition, status = "definitions_invalid", Disposition.REJECT, 400


class DefinitionsMoved(TouchfoldError):
    """Somebody else changed the definitions in the meantime: merge again."""

    code, disposition, status = "definitions_moved", Disposition.RETRY, 409


class SqlRefused(TouchfoldError):
    """The SQL process does not run statements of this kind, or the statement failed."""

    code, disposition, status = "sql_refused", Disposition.REJECT, 400


class SqlLimit(TouchfoldError):
    """The statement exceeded its limit of memory, time or size."""

    code, disposition, status = "sql_limit", Disposition.REJECT, 400


class ErasureRefused(TouchfoldError):
    """The identifier reaches more than one user_id or an open case: needs --force."""

    code, disposition, status = "erasure_refused", Disposition.REJECT, 409


class SharedIdentifier(TouchfoldError):
    """The identifier is that of several customers: the answer lists them under `items`, most recently seen first."""

    code, disposition, status = "shared_identifier", Disposition.REJECT, 409

    def __init__(self, message: str, profile_ids: Sequence[bytes], *, more: bool) -> None:
        super().__init__(message)
        self.profile_ids = tuple(profile_ids)
        self.more = more  # whether there are others


class RightsMissing(TouchfoldError):
    """Our account in PostgreSQL lacks a right that this needs: nothing was done, the message has the GRANT to run."""

    code, disposition, status = "rights_missing", Disposition.STOP, 409


class RecordUnreadable(TouchfoldError):
    """Bytes in the log that are not a touchpoint record."""

    code, disposition = "record_unreadable", Disposition.DEAD_LETTER


class FactUnreadable(TouchfoldError):
    """A stored fact does not have the form of its class."""

    code, disposition = "fact_unreadable", Disposition.DEAD_LETTER


class ReaderTooOld(TouchfoldError):
    """The record is good, but this build is too old for it. Its partition waits for an upgrade; all others continue."""

    code, disposition, status = "reader_too_old", Disposition.WAIT, 503


class FoldFailed(TouchfoldError):
    """A record that was applied cannot be read or folded again. The message names partition and offset."""

    code, disposition = "fold_failed", Disposition.STOP


class SetAsideRefused(TouchfoldError):
    """No partition waits at this record: it can be read, or has already been applied or set aside."""

    code, disposition, status = "set_aside_refused", Disposition.REJECT, 409


class SealBroken(TouchfoldError):
    """Sealed bytes do not open under the key they name."""

    code, disposition = "seal_broken", Disposition.STOP


class KeyMissing(TouchfoldError):
    """A key that no erasure explains is not in the vault: the vault was lost, not the person erased."""

    code, disposition = "key_missing", Disposition.STOP


class MasterKeyWrong(TouchfoldError):
    """The master key does not open this vault."""

    code, disposition = "master_key_wrong", Disposition.STOP


class DatabaseLost(TouchfoldError):
    """A database or the vault is missing, though its data exists elsewhere. It is never replaced by an empty one."""

    code, disposition = "database_lost", Disposition.STOP


class StoreUnavailable(TouchfoldError):
    """PostgreSQL, Kafka or the vault cannot be reached. Answered with 503 and Retry-After."""

    code, disposition, status = "unavailable", Disposition.RETRY, 503


class TooManyConnections(StoreUnavailable):
    """The process has reached its connection limit, and no connection is idle."""

    code = "too_many_connections"


class DiskFull(StoreUnavailable):
    """Less of the disk is free than the reserve kept for erasures, sign-in and PostgreSQL."""

    code = "disk_full"


class ConnectionsInUse(StoreUnavailable):
    """PostgreSQL is up, but no connection became free in time, in this process or on the server."""

    code = "connections_in_use"


class DatabaseDamaged(StoreUnavailable):
    """PostgreSQL cannot read its own data. Nothing is set aside because of it: work waits for the repair."""

    code = "database_damaged"


class ProgressConflict(TouchfoldError):
    """Another worker owns the partition, or the batch is not the next one."""

    code, disposition = "progress_conflict", Disposition.RETRY


class ArchiveDamaged(TouchfoldError):
    """A file of the archive is missing or differs from its manifest."""

    code, disposition = "archive_damaged", Disposition.STOP


class BackupDamaged(TouchfoldError):
    """An object of a backup is missing, altered or does not open; the message names it."""

    code, disposition = "backup_damaged", Disposition.STOP


class BackupKeyWrong(TouchfoldError):
    """The backup key is missing, unreadable or not the one that sealed the backup."""

    code, disposition = "backup_key_wrong", Disposition.STOP


class BackupRefused(TouchfoldError):
    """The backup or restore is not possible; nothing was changed. The message says what to do."""

    code, disposition = "backup_refused", Disposition.STOP


class LogTruncated(TouchfoldError):
    """Retention has removed the records from the log. The message names partition, offset and the log's start."""

    code, disposition = "log_truncated", Disposition.STOP


class FolderLocked(TouchfoldError):
    """Another process uses the data folder."""

    code, disposition = "folder_locked", Disposition.STOP


class SchemaNewer(TouchfoldError):
    """The database was migrated by a newer build."""

    code, disposition = "schema_newer", Disposition.STOP


class PortInUse(TouchfoldError):
    """Another process listens on the port."""

    code, disposition = "port_in_use", Disposition.STOP


class ServiceFailed(TouchfoldError):
    """A process that we started did not come up; the message has the end of its log."""

    code, disposition = "service_failed", Disposition.STOP


class RevisionReplaced(StoreUnavailable):
    """The tables of a revision are gone because another one is live. Ask which, and read again."""


class FiguresPreparing(StoreUnavailable):
    """The figures of a report are being counted for the first time; the message says how far along that is."""

    code = "figures_preparing"
