"""Values of answers, and what decides who is in a segment."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from projections.definitions.files import load_pack, parse_documents
from query.answers import computed, iso, iso_us, sent
from query.segments.segments import meaning
from schemas.definitions import Definitions


def test_times_are_iso_in_utc_with_z() -> None:
    at = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert iso(at) == "2026-01-01T00:00:00Z"
    assert iso_us(1) == "1970-01-01T00:00:00.000001Z"
    assert iso_us(None) is None


def test_computed_decimals_are_strings_of_four_places() -> None:
    assert computed(Decimal("20.5000")) == "20.5000"
    assert computed(Decimal("0").quantize(Decimal("0.0001"))) == "0.0000"
    assert computed(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00Z"
    assert computed(7) == 7
    assert computed(None) is None


def test_traits_are_numbers_again_where_they_were() -> None:
    assert sent({"a": [Decimal("1.5"), "x"], "b": True}) == {"a": [1.5, "x"], "b": True}


def patched(text: str) -> Definitions:
    return parse_documents([*((name, body) for name, body in load_pack("retail")), ("more.yaml", text)])


SEGMENTS = """
segments:
  mine: {when: {segment: vip}}
computed_traits:
  pages: {aggregate: count, events: [web.page_viewed], window_days: %d}
"""


def test_the_meaning_of_a_segment_reaches_through_segments_stages_and_traits() -> None:
    reached = meaning(patched(SEGMENTS % 7), "mine")
    assert {"segments.mine", "segments.vip", "computed.revenue_365d"} <= reached.keys()
    assert any(name.startswith("stages.") for name in meaning(patched(SEGMENTS % 7), "new_customers"))


def test_a_change_elsewhere_does_not_change_a_meaning() -> None:
    one, two = patched(SEGMENTS % 7), patched(SEGMENTS % 8)
    assert meaning(one, "mine") == meaning(two, "mine")
    three = patched((SEGMENTS % 7).replace("{segment: vip}", "{trait: pages, op: gte, value: 2}"))
    four = patched((SEGMENTS % 8).replace("{segment: vip}", "{trait: pages, op: gte, value: 2}"))
    assert meaning(three, "mine") != meaning(four, "mine")
