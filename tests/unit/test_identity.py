"""Identity: Segment's published cases, and one example of each rule of design C6."""

import json
import re
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from projections.identity.evidence import Evidence, KnownToken, Profile, Refused, base_token
from projections.identity.extend import extend
from projections.identity.resolve import IdentityChange, Resolution, changes, resolve, scopes
from projections.identity.shared import find_shared, partners_of
from schemas.errors import DefinitionsInvalid
from schemas.identity_rules import DEFAULT_RULES, IdentityRules
from schemas.record import identifier_set_of

CASES: Final = {
    case["case"]: case
    for case in json.loads(
        (Path(__file__).parents[1] / "data/identity/identity_and_time_cases.json").read_text(encoding="utf-8")
    )
}


def token(text: str) -> bytes:
    """The token of "kind:value"."""
    return blake2b(text.encode(), digest_size=16).digest()


def seen(at: int, *texts: str) -> Evidence:
    """A signature of identifiers "kind:value", first received at `at` microseconds."""
    ids = tuple((text.split(":")[0], token(text)) for text in texts)
    return Evidence(identifier_set_of(t for _, t in ids), ids, at, at.to_bytes(16, "big"))


def owner(found: Resolution, *texts: str) -> bytes:
    return found.owner[identifier_set_of(map(token, texts))]


def home(found: Resolution, text: str) -> bytes:
    return next(profile_id for profile_id, members in found.members.items() if token(text) in members)


def from_segment(case: dict[str, Any]) -> list[Evidence]:
    """A published case's events as evidence; a blocked value is not an identifier."""
    blocked = [
        rule["value"] if rule["kind"] == "regex" else re.escape(rule["value"]) for rule in case.get("blocked", [])
    ]
    found = []
    for at, event in enumerate(case["events"]):
        device = event.get("context", {}).get("device", {})
        ids = {
            "user_id": event.get("userId"),
            "email": event.get("traits", {}).get("email"),
            "anonymous_id": event.get("anonymousId"),
            f"{device.get('type')}.id": device.get("id"),
        }
        live = {k: v for k, v in ids.items() if v and not any(re.fullmatch(b, v) for b in blocked)}
        found.append(seen(at, *(f"{kind}:{value}" for kind, value in live.items())))
    return found


def test_segments_jane_doe_is_one_profile_across_devices_and_apps() -> None:
    case = CASES["jane_doe_anonymous_to_known_cross_device_cross_app"]
    found = resolve(from_segment(case), DEFAULT_RULES)
    assert len(found.members) == case["expected"]["profiles"]
    expected = [f"{kind}:{v}" for kind, values in case["expected"]["identifiers"].items() for v in values]
    assert set(found.profiles[home(found, "user_id:abc123def")].tokens) == set(map(token, expected))
    assert found.refused == ()


def test_segments_second_user_id_with_the_same_email_becomes_a_profile_of_its_own() -> None:
    case = CASES["priority_demotion_second_user_id_same_email"]
    rules = IdentityRules(
        above=tuple(row["identifier"] for row in case["config"]),
        below=(),
        limits={row["identifier"]: row["limit"] for row in case["config"]},
    )
    found = resolve(from_segment(case), rules)
    assert len(found.members) == case["expected"]["profiles"]
    assert home(found, "email:jane@example1.com") == home(found, f"user_id:{case['expected']['email_owner']}")
    second = identifier_set_of([token("user_id:abc456"), token("email:jane@example1.com")])
    assert found.owner[second] == home(found, "user_id:abc456")
    assert found.refused == (Refused(second, token("email:jane@example1.com"), "email", "limit:user_id"),)


def test_segments_blocked_values_link_nobody() -> None:
    case = CASES["blocked_values"]
    assert len(resolve(from_segment(case), DEFAULT_RULES).members) == case["expected"]["profiles"]


def test_default_ranks_put_external_types_between_phone_and_device() -> None:
    order = ["user_id", "loyalty_card", "email", "phone", "android.id", "crm_id", "device_id", "anonymous_id"]
    assert sorted(set(order), key=DEFAULT_RULES.rank) == order
    assert [DEFAULT_RULES.limit(kind) for kind in order] == [1, 5, 5, 5, 5, 5, 20, 100]
    higher = [DEFAULT_RULES.sharing_limit("anonymous_id", kind) for kind in order]
    assert higher == [5, 5, 10, 10, 10, 10, 20, None]
    assert [DEFAULT_RULES.sharing_limit("user_id", kind) for kind in order] == [5, 10, 10, 10, *4 * [None]]
    assert [DEFAULT_RULES.sharing_limit("loyalty_card", kind) for kind in order] == [5, None, 10, 10, *4 * [None]]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"above": ("email", "email")}, "email"),
        ({"above": ("anonymous_id",)}, "anonymous_id"),
        ({"limits": {"email": 0}}, "email"),
        ({"limits": {"email": 11}}, "email"),
        ({"sharing_limits": {"crm_id": 4}}, "crm_id"),
        ({"default_sharing_limit": 4}, "(other kinds)"),
        ({"crowd_limits": {"user_id": {"phone": 4}}}, "phone"),
    ],
)
def test_rules_that_cannot_hold_are_refused_by_kind(wrong: dict[str, Any], kind: str) -> None:
    with pytest.raises(DefinitionsInvalid) as refused:
        IdentityRules(**wrong)
    assert kind in [problem.path for problem in refused.value.problems]


def test_a_kiosk_seen_with_six_users_is_a_hub_and_links_none_of_them_even_before() -> None:
    visits = [seen(at, f"user_id:{at}", "device_id:kiosk") for at in range(5)]
    before = resolve(visits, DEFAULT_RULES)
    assert before.shared == frozenset()
    assert owner(before, "user_id:0", "device_id:kiosk") == home(before, "device_id:kiosk")
    after = resolve([*visits, seen(5, "user_id:5", "device_id:kiosk")], DEFAULT_RULES)
    assert after.shared == {token("device_id:kiosk")}
    assert after.refused == ()
    assert after.members == {token(f"user_id:{n}"): (token(f"user_id:{n}"),) for n in range(6)} | {
        token("device_id:kiosk"): (token("device_id:kiosk"),)
    }


def test_lower_ranked_partners_make_no_hub() -> None:
    evidence = [seen(at, "user_id:ada", f"anonymous_id:{at}") for at in range(50)]
    assert find_shared(evidence, DEFAULT_RULES) == frozenset()
    assert len(resolve(evidence, DEFAULT_RULES).members) == 1


def test_a_shared_device_stays_with_its_first_user_and_the_second_link_is_refused() -> None:
    found = resolve(
        [
            seen(1, "user_id:ada", "device_id:tablet"),
            seen(2, "user_id:bob", "device_id:tablet"),
            seen(3, "device_id:tablet"),
        ],
        DEFAULT_RULES,
    )
    both = identifier_set_of([token("user_id:bob"), token("device_id:tablet")])
    assert found.owner[both] == token("user_id:bob")
    assert owner(found, "device_id:tablet") == home(found, "user_id:ada")
    assert found.refused == (Refused(both, token("device_id:tablet"), "device_id", "limit:user_id"),)


def test_the_sixth_email_finds_its_user_as_the_first_five_do() -> None:
    found = resolve([seen(at, "user_id:ada", f"email:{at}@x.org") for at in range(6)], DEFAULT_RULES)
    assert {home(found, f"email:{at}@x.org") for at in range(6)} == {home(found, "user_id:ada")}
    assert found.refused == ()


def test_the_sixth_email_joins_with_the_visits_it_came_with_and_not_with_another_address_or_card() -> None:
    five = [seen(at, "user_id:ada", f"email:{at}@x.org") for at in range(5)]
    new = [seen(5, "email:new@x.org", "anonymous_id:a"), seen(6, "user_id:ada", "anonymous_id:a")]
    found = resolve([*five, *new], DEFAULT_RULES)
    assert home(found, "email:new@x.org") == home(found, "user_id:ada")
    two = [seen(5, "email:b@x.org", "email:c@x.org", "anonymous_id:a"), new[1]]
    apart = resolve([*five, *two], DEFAULT_RULES)
    assert home(apart, "email:b@x.org") != home(apart, "user_id:ada")
    card = [seen(5, "email:new@x.org", "loyalty_card:7"), seen(6, "user_id:ada", "email:new@x.org")]
    assert [refused.reason for refused in resolve([*five, *card], DEFAULT_RULES).refused] == ["limit:email"]


def test_a_tablet_where_six_people_write_their_email_keeps_five() -> None:
    """Nothing that ranks higher says that they are one person."""
    found = resolve([seen(at, "device_id:tablet", f"email:{at}@x.org") for at in range(6)], DEFAULT_RULES)
    sixth = token("email:5@x.org")
    assert found.members[home(found, "device_id:tablet")] != (token("device_id:tablet"),)
    both = identifier_set_of([sixth, token("device_id:tablet")])
    assert found.refused == (Refused(both, token("device_id:tablet"), "device_id", "limit:email"),)
    assert found.profiles[sixth] == Profile(sixth, {sixth: "email"}, *2 * [(5, (5).to_bytes(16, "big"))])


@pytest.mark.parametrize("login", ["user_id:till-3", "loyalty_card:spare"])
@pytest.mark.parametrize("kind", ["email", "phone"])
def test_a_login_that_serves_twelve_customers_collects_none_of_them(login: str, kind: str) -> None:
    own = [seen(at, f"{kind}:{at}", f"anonymous_id:{at}") for at in range(0, 12, 2)]
    served = [seen(20 + at, login, f"{kind}:{at}") for at in range(12)]
    later = [seen(40 + at, f"{kind}:{at}", f"anonymous_id:{at}") for at in range(1, 12, 2)]
    found = resolve([*own, *served, *later], DEFAULT_RULES)
    assert found.shared == {token(login)}
    assert len({home(found, f"{kind}:{at}") for at in range(12)}) == 12
    assert all(home(found, f"{kind}:{at}") == home(found, f"anonymous_id:{at}") for at in range(12))
    assert [found.owner[each.identifier_set] for each in served] == [home(found, f"{kind}:{at}") for at in range(12)]


def test_an_alias_of_two_user_ids_joins_them_in_whatever_order_a_chain_arrives() -> None:
    known = [seen(at, f"user_id:{name}", f"email:{name}{n}@x.org") for n in (0, 1) for at, name in enumerate("abc")]
    chain = [seen(10, "user_id:b", "user_id:a"), seen(11, "user_id:c", "user_id:b")]
    for aliases in (chain, [each._replace(received_us=21 - each.received_us) for each in chain]):
        found = resolve([*known, *aliases], DEFAULT_RULES)
        assert len(found.members) == 1
        assert found.refused == ()


def test_a_login_that_everybody_is_aliased_to_joins_nobody() -> None:
    found = resolve([seen(at, "user_id:till", f"user_id:{at}") for at in range(6)], DEFAULT_RULES)
    assert found.shared == {token("user_id:till")}
    assert len(found.members) == 7


def test_a_second_user_on_a_browser_is_no_alias() -> None:
    found = resolve(
        [
            seen(1, "user_id:a", "user_id:b"),
            seen(2, "user_id:a", "anonymous_id:x"),
            seen(3, "user_id:c", "anonymous_id:x"),
        ],
        DEFAULT_RULES,
    )
    assert home(found, "user_id:c") != home(found, "user_id:a") == home(found, "user_id:b")


def test_a_refused_link_leaves_the_other_links_of_its_signature() -> None:
    found = resolve(
        [
            seen(1, "user_id:ada", "device_id:tablet"),
            seen(2, "user_id:bob", "device_id:tablet", "anonymous_id:b"),
        ],
        DEFAULT_RULES,
    )
    assert home(found, "anonymous_id:b") == home(found, "user_id:bob")


def test_a_profile_is_named_by_its_first_received_token_and_keeps_that_name() -> None:
    first = [seen(1, "anonymous_id:a"), seen(2, "user_id:ada", "anonymous_id:a", "email:ada@x.org")]
    assert set(resolve(first, DEFAULT_RULES).members) == {token("anonymous_id:a")}
    more = [*first, seen(3, "user_id:ada", "loyalty_card:7")]
    assert set(resolve(more, DEFAULT_RULES).members) == {token("anonymous_id:a")}


def test_tokens_received_together_name_by_rank_and_then_by_token() -> None:
    found = resolve([seen(1, "anonymous_id:a", "email:a@x.org", "email:b@x.org")], DEFAULT_RULES)
    assert set(found.members) == {min(token("email:a@x.org"), token("email:b@x.org"))}


def test_a_later_merge_goes_into_the_older_profile() -> None:
    evidence = [seen(1, "anonymous_id:old"), seen(2, "user_id:ada"), seen(3, "user_id:ada", "anonymous_id:old")]
    found = resolve(evidence, DEFAULT_RULES)
    assert set(found.members) == {token("anonymous_id:old")}


def test_hubs_only_signatures_go_to_the_highest_hub_alone() -> None:
    texts = [(f"user_id:{at}", "email:shop@x.org", "device_id:till") for at in range(6)]
    evidence = [seen(at, *each) for at, each in enumerate(texts)]
    found = resolve([*evidence, seen(9, "device_id:till", "email:shop@x.org")], DEFAULT_RULES)
    assert found.shared == {token("email:shop@x.org"), token("device_id:till")}
    assert owner(found, "email:shop@x.org", "device_id:till") == token("email:shop@x.org")
    assert found.members[token("email:shop@x.org")] == (token("email:shop@x.org"),)


def test_the_base_token_names_the_owner_without_storing_it() -> None:
    ids = seen(1, "anonymous_id:a", "user_id:ada", "email:a@x.org").tokens
    assert base_token(ids, set(), DEFAULT_RULES) == token("user_id:ada")
    assert base_token(ids, {token("user_id:ada")}, DEFAULT_RULES) == token("email:a@x.org")
    assert base_token(ids, {t for _, t in ids}, DEFAULT_RULES) == token("user_id:ada")


def test_a_manual_link_comes_before_evidence_and_a_split_keeps_the_sides_apart() -> None:
    evidence = [
        seen(1, "user_id:ada", "device_id:tablet"),
        seen(2, "user_id:bob", "device_id:tablet"),
        seen(3, "user_id:bob", "email:b@x.org"),
    ]
    by_hand = resolve(evidence, DEFAULT_RULES, manual=[(token("user_id:bob"), token("device_id:tablet"))])
    assert home(by_hand, "device_id:tablet") == home(by_hand, "user_id:bob")
    split = ([token("user_id:bob")], [token("email:b@x.org"), token("device_id:tablet")])
    apart = resolve(evidence, DEFAULT_RULES, cannot=[split])
    assert home(apart, "email:b@x.org") != home(apart, "user_id:bob")
    assert {refused.reason for refused in apart.refused} == {"cannot_link"}


def test_scopes_are_joined_by_refused_links_and_not_by_hubs() -> None:
    both = [seen(1, "user_id:ada", "device_id:t"), seen(2, "user_id:bob", "device_id:t")]
    kiosk = [seen(10 + at, f"user_id:{at}", "device_id:kiosk") for at in range(6)]
    evidence = [*both, *kiosk, seen(20, "device_id:kiosk")]
    shared = find_shared(evidence, DEFAULT_RULES)
    assert list(map(len, scopes(evidence, shared))) == [2, *[1] * 7]
    by_hand = [
        (token("user_id:ada"), token("user_id:5")),
        *((token("device_id:kiosk"), t) for _, t in kiosk[0].tokens),
    ]
    assert list(map(len, scopes(evidence, shared, by_hand))) == [3, *[1] * 6]


class Ada:
    """A decided profile of user, e-mail and visitor, as stored: named by the visitor at 1, last touched at 5."""

    visitor, user, email = token("anonymous_id:a"), token("user_id:ada"), token("email:a@x.org")
    profile = Profile(
        visitor, {visitor: "anonymous_id", user: "user_id", email: "email"}, (1, bytes(16)), (5, bytes(16))
    )
    profiles: Final = {visitor: profile}
    known: Final = {
        visitor: KnownToken("anonymous_id", False, visitor),
        user: KnownToken("user_id", False, visitor),
        email: KnownToken("email", False, visitor),
    }


def test_extend_adds_a_token_to_a_known_profile_and_says_only_what_changed() -> None:
    fresh = seen(7, "user_id:ada", "anonymous_id:phone")
    found = extend(Ada.known, Ada.profiles, [fresh], DEFAULT_RULES, {})
    phone = token("anonymous_id:phone")
    assert found is not None
    assert found.owner == {fresh.identifier_set: Ada.visitor}
    assert found.tokens == {phone: KnownToken("anonymous_id", False, Ada.visitor)}
    assert (found.merged, found.refused) == ((), ())
    assert found.partners == {phone: {"user_id": {Ada.user}}}
    tokens = {**Ada.profile.tokens, phone: "anonymous_id"}
    assert found.profiles == {Ada.visitor: Profile(Ada.visitor, tokens, (1, bytes(16)), fresh.receipt)}


def test_extend_merges_the_newer_profile_into_the_older() -> None:
    other = token("loyalty_card:7")
    known = Ada.known | {other: KnownToken("loyalty_card", False, other)}
    older = Profile(other, {other: "loyalty_card"}, (0, bytes(16)), (2, bytes(16)))
    fresh = seen(7, "user_id:ada", "loyalty_card:7")
    found = extend(known, {**Ada.profiles, other: older}, [fresh], DEFAULT_RULES, {})
    assert found is not None
    assert found.merged == ((Ada.visitor, other),)
    assert set(found.tokens) == set(Ada.profile.tokens)
    assert found.owner == {fresh.identifier_set: other}


def test_extend_never_speaks_of_a_profile_that_began_and_ended_within_the_batch() -> None:
    fresh = [seen(7, "anonymous_id:new"), seen(8, "user_id:ada", "anonymous_id:new")]
    found = extend(Ada.known, Ada.profiles, fresh, DEFAULT_RULES, {})
    assert found is not None
    assert (found.merged, set(found.profiles)) == ((), {Ada.visitor})
    assert set(found.owner.values()) == {Ada.visitor}


def test_extend_records_a_refused_link_and_both_profiles_it_touched() -> None:
    fresh = seen(7, "user_id:bob", "email:a@x.org")
    found = extend(Ada.known, Ada.profiles, [fresh], DEFAULT_RULES, {})
    assert found is not None
    assert found.refused == (Refused(fresh.identifier_set, Ada.email, "email", "limit:user_id"),)
    assert {p.profile_id: p.last_receipt for p in found.profiles.values()} == dict.fromkeys(
        (Ada.visitor, token("user_id:bob")), fresh.receipt
    )


@pytest.mark.parametrize("at", [4, 5])
def test_extend_declines_what_was_received_no_later_than_the_last_receipt(at: int) -> None:
    fresh = seen(at, "user_id:ada", "anonymous_id:b")._replace(place=bytes(16))
    assert extend(Ada.known, Ada.profiles, [fresh], DEFAULT_RULES, {}) is None


def test_extend_declines_a_token_that_becomes_a_hub_and_leaves_a_known_hub_alone() -> None:
    partners = {Ada.email: {"user_id": {token(f"user_id:{n}") for n in range(5)}}}
    fresh = seen(7, "user_id:bob", "email:a@x.org")
    assert extend(Ada.known, Ada.profiles, [fresh], DEFAULT_RULES, partners) is None
    is_shared = {Ada.email: KnownToken("email", True, Ada.email)}
    found = extend(is_shared, {}, [fresh, seen(8, "email:a@x.org")], DEFAULT_RULES, partners)
    assert found is not None
    assert set(found.owner.values()) == {token("user_id:bob"), Ada.email}
    assert found.refused == ()


def test_extend_declines_a_new_token_that_a_manual_edge_waits_for() -> None:
    fresh = seen(7, "user_id:bob")
    assert extend({}, {}, [fresh], DEFAULT_RULES, {}, manual=[(token("user_id:bob"), Ada.user)]) is None


def test_a_late_event_about_known_tokens_renames_nobody() -> None:
    """An old occurrence received now: receipt decides, so the name stays and the short way holds."""
    found = extend(Ada.known, Ada.profiles, [seen(9, "user_id:ada", "email:a@x.org")], DEFAULT_RULES, {})
    assert found is not None
    assert (set(found.profiles), found.merged, found.tokens) == ({Ada.visitor}, (), {})


def test_changes_name_what_a_hub_crossing_did_to_the_ids_given_out() -> None:
    at = count()
    visits = [
        seen(next(at), "device_id:kiosk"),
        *(seen(next(at), f"user_id:{n}", "device_id:kiosk") for n in range(6)),
    ]
    before = resolve(visits[:6], DEFAULT_RULES)
    after = resolve(visits, DEFAULT_RULES)
    stood = {t: profile_id for profile_id, members in before.members.items() for t in members}
    kiosk = token("device_id:kiosk")
    assert changes(stood, after) == [
        IdentityChange(kiosk, "moved", (kiosk,)),
        IdentityChange(kiosk, "split_off", (token("user_id:0"),)),
    ]


def test_changes_name_the_profile_an_earlier_receipt_merged_others_into() -> None:
    apart = [seen(5, "user_id:ada"), seen(6, "email:a@x.org")]
    before = resolve(apart, DEFAULT_RULES)
    after = resolve([*apart, seen(4, "user_id:ada", "email:a@x.org")], DEFAULT_RULES)
    stood = {t: profile_id for profile_id, members in before.members.items() for t in members}
    user, email = token("user_id:ada"), token("email:a@x.org")
    assert changes(stood, after) == [IdentityChange(email, "merged_into", (user,))]
    assert changes({token("user_id:erased"): token("user_id:erased")}, after) == []


def test_partners_are_the_distinct_tokens_seen_together_that_count() -> None:
    evidence = [seen(1, "user_id:a", "email:x"), seen(2, "user_id:b", "email:x"), seen(3, "email:x", "phone:1")]
    assert partners_of(evidence, DEFAULT_RULES) == {
        token("email:x"): {"user_id": {token("user_id:a"), token("user_id:b")}},
        token("user_id:a"): {"email": {token("email:x")}},
        token("user_id:b"): {"email": {token("email:x")}},
        token("phone:1"): {"email": {token("email:x")}},
    }
