"""System facts: closed, versioned, in a table of their own, in the order they became true.

The wire name is a word we chose; a stored payload never changes, readers lift it one version at a time.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import FactUnreadable, ReaderTooOld
from schemas.upcasters import UPCASTERS, Payload


class Fact(BaseModel):
    """A fact that happened. Frozen; an unknown field is refused, never dropped."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: ClassVar[str]  # wire name, stable for ever
    version: ClassVar[int]  # current payload version, from 1

    def payload(self) -> Payload:
        """As the table keeps it."""
        return self.model_dump(mode="json")


class DefinitionChanged(Fact):
    """v1 {content_hash, definitions}: everything that is defined from now on, whole."""

    type = "definition.changed"
    version = 1
    content_hash: str
    definitions: dict[str, Any]


class PersonErased(Fact):
    """v1 {job, tokens, profiles}: tokens (hexadecimal) that open nothing any more, and the profiles that end."""

    type = "person.erased"
    version = 1
    job: str
    tokens: list[str]
    profiles: list[str]


class RecordSetAside(Fact):
    """v1 {partition, offset, code, reason}: a record that could not be read was set aside by hand."""

    type = "record.set_aside"
    version = 1
    partition: int
    offset: int
    code: str
    reason: str


class RecordRestored(Fact):
    """v1 {partition, offset}: a record that was set aside was read and applied after all."""

    type = "record.restored"
    version = 1
    partition: int
    offset: int


_ALL: Final = (DefinitionChanged, PersonErased, RecordSetAside, RecordRestored)
FACTS: Final[Mapping[str, type[Fact]]] = {each.type: each for each in _ALL}


def decode_fact(type_: str, version: int, payload: Payload) -> Fact:
    """Read a stored payload as the current class. Raises FactUnreadable, or ReaderTooOld for a newer version."""
    cls = FACTS.get(type_)
    if cls is None or version < 1:
        raise FactUnreadable(f"no reader for {type_} v{version}")
    if version > cls.version:
        raise ReaderTooOld(f"{type_} v{version}; this build reads v{cls.version}")
    for step in range(version, cls.version):
        payload = UPCASTERS[type_, step](payload)
    try:
        return cls.model_validate(payload)
    except ValidationError as err:
        raise FactUnreadable(f"{type_} v{version}: {err.error_count()} bad fields") from err
