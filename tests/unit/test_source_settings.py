"""Settings of a source: what they can be, and what is said of the others."""

from typing import Any

import pytest

from schemas.errors import BadRequest
from schemas.sources import SETTINGS, changed_settings, source_of


def test_what_is_given_changes_and_the_rest_stays() -> None:
    stored = changed_settings({}, {"events_per_s": 100, "trusted_clock": True})
    stored = changed_settings(stored, {"burst": 500, "origins": ["https://Shop.example/", "https://shop.example:443"]})
    assert source_of("web", stored) == ("web", True, True, 100.0, ("https://shop.example",), 500.0)
    assert changed_settings(stored, {"enabled": False, "origins": None})["events_per_s"] == 100
    assert changed_settings(stored, dict.fromkeys(SETTINGS)) == {}
    assert source_of("web", {"events_per_s": 10}).bucket == 20


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"events_per_s": 0}, "events_per_s", "from 0.001"),
        ({"events_per_s": -1}, "events_per_s", "from 0.001"),
        ({"events_per_s": float("nan")}, "events_per_s", "a number"),
        ({"events_per_s": float("inf")}, "events_per_s", "a number"),
        ({"events_per_s": True}, "events_per_s", "a number"),
        ({"events_per_s": "10"}, "events_per_s", "a number"),
        ({"events_per_s": 10, "burst": 0.5}, "burst", "from 1"),
        ({"burst": 10}, "burst", "needs a rate"),
        ({"origins": "https://shop.example"}, "origins", "a list"),
        ({"origins": ["shop.example"]}, "origins", "not an origin"),
        ({"origins": ["https://shop.example/path"]}, "origins", "not an origin"),
        ({"origins": ["*"]}, "origins", "not an origin"),
        ({"origins": ["https://a.example"] * 101}, "origins", "more than 100"),
        ({"enabled": "no"}, "enabled", "true or false"),
        ({"trusted_clock": 1}, "trusted_clock", "true or false"),
        ({"rate": 1}, "rate", "not a setting"),
    ],
)
def test_a_value_it_cannot_have_is_named(changes: dict[str, Any], path: str, said: str) -> None:
    with pytest.raises(BadRequest, match=path) as refused:
        changed_settings({}, changes)
    (problem,) = refused.value.problems
    assert problem.path == path
    assert said in problem.reason
