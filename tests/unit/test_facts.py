"""System facts: every version ever written is read for ever, and the chain of upcasters has no hole."""

import json
from pathlib import Path

import pytest

from schemas.errors import FactUnreadable, ReaderTooOld
from schemas.facts import FACTS, decode_fact
from schemas.upcasters import UPCASTERS

SAMPLES = Path(__file__).parents[1] / "fixtures" / "records"


@pytest.mark.parametrize("type_", sorted(FACTS))
def test_every_version_of_a_fact_has_a_sample_that_decodes(type_: str) -> None:
    for version in range(1, FACTS[type_].version + 1):
        payload = json.loads((SAMPLES / type_ / f"v{version}.json").read_text())
        fact = decode_fact(type_, version, payload)
        assert fact.payload() == payload or version < FACTS[type_].version


def test_the_upcasters_have_no_hole() -> None:
    for type_, cls in FACTS.items():
        assert all((type_, version) in UPCASTERS for version in range(1, cls.version))


def test_an_unknown_field_is_refused_and_a_newer_version_stops_the_reader() -> None:
    with pytest.raises(FactUnreadable, match=r"person\.erased v1: 1 bad fields"):
        decode_fact("person.erased", 1, {"job": "j", "tokens": [], "profiles": [], "more": 1})
    with pytest.raises(ReaderTooOld, match="this build reads v1"):
        decode_fact("person.erased", 2, {})
    with pytest.raises(FactUnreadable, match="no reader"):
        decode_fact("person.unknown", 1, {})
