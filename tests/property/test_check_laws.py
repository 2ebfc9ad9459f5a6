"""The proof's parts that work on disk say what their plain forms say in memory."""

from collections.abc import Iterator
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from processors.rebuild.check_identity import Grouped, earliest, owners_of, packed
from processors.rebuild.external_sort import Scratch, joined
from projections.identity.evidence import Evidence
from projections.identity.resolve import resolve
from projections.identity.shared import find_shared
from schemas.identity_rules import DEFAULT_RULES

_PAIRS = st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=300)), max_size=200)
_KINDS = ("user_id", "email", "device_id", "anonymous_id")


def _token(kind: str, number: int) -> bytes:
    return f"{kind[:4]}{number:012d}".encode()


def _evidence(rnd: Random, count: int, people: int) -> list[Evidence]:
    """Few people with many identifiers each, so that limits, hubs and refused links occur."""
    found = {}
    for number in range(count):
        kinds = rnd.sample(_KINDS, rnd.randint(1, 3))
        tokens = tuple((kind, _token(kind, rnd.randrange(people if kind != "device_id" else 3))) for kind in kinds)
        identifier_set = b"".join(sorted(token for _, token in tokens))[-16:].rjust(16, b"s")
        found[identifier_set] = Evidence(identifier_set, tokens, number, number.to_bytes(16, "big"))
    return list(found.values())


@given(_PAIRS, st.integers(100, 5_000))
def test_a_sorter_gives_what_it_was_given_in_order_and_again(pairs: list[tuple[bytes, bytes]], held: int) -> None:
    with Scratch(held_bytes=held) as scratch:
        sorter = scratch.sorter()
        for key, value in pairs:
            sorter.add(key, value)
        assert list(sorter) == sorted(pairs) == list(sorter)


def test_more_runs_than_are_merged_at_once_are_merged_in_levels() -> None:
    with Scratch(held_bytes=1) as scratch:
        sorter = scratch.sorter()
        keys = [number.to_bytes(4, "big") for number in range(2_500)]
        for key in Random(3).sample(keys, len(keys)):
            sorter.add(key, b"x")
        assert [key for key, _ in sorter] == keys


@given(st.dictionaries(st.binary(max_size=2), st.integers()), st.dictionaries(st.binary(max_size=2), st.integers()))
def test_a_join_shows_every_key_of_either_side_once(left: dict[bytes, int], right: dict[bytes, int]) -> None:
    found = list(joined(sorted(left.items()), sorted(right.items())))
    assert found == [(key, left.get(key), right.get(key)) for key in sorted(left.keys() | right.keys())]


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(1, 12), st.integers(1, 8))
def test_owners_resolved_scope_by_scope_are_those_of_all_evidence_at_once(
    rnd: Random, count: int, people: int, groups: int
) -> None:
    evidence = _evidence(rnd, count, people)
    thought = {each.identifier_set: rnd.randrange(groups).to_bytes(16, "big") for each in evidence}  # right or wrong
    ordered = sorted(evidence)

    def read() -> Iterator[Grouped]:
        return ((each, thought[each.identifier_set]) for each in ordered)

    with Scratch(held_bytes=2_000) as scratch:
        owners = dict(owners_of(read, DEFAULT_RULES, scratch))
    assert {key: value[:16] for key, value in owners.items()} == resolve(evidence, DEFAULT_RULES).owner


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(2, 12), st.integers(1, 8))
def test_tokens_that_name_nobody_link_nothing_scope_by_scope_either(
    rnd: Random, count: int, people: int, groups: int
) -> None:
    evidence = _evidence(rnd, count, people)
    thought = {each.identifier_set: rnd.randrange(groups).to_bytes(16, "big") for each in evidence}
    tokens = sorted({token for each in evidence for _, token in each.tokens})
    unnamed = frozenset(rnd.sample(tokens, rnd.randrange(len(tokens) + 1)))
    ordered = sorted(evidence)

    def read() -> Iterator[Grouped]:
        return ((each, thought[each.identifier_set]) for each in ordered)

    with Scratch(held_bytes=2_000) as scratch:
        owners = dict(owners_of(read, DEFAULT_RULES, scratch, unnamed))
    whole = resolve(evidence, DEFAULT_RULES, shared=find_shared(evidence, DEFAULT_RULES) | unnamed)
    assert {key: value[:16] for key, value in owners.items()} == whole.owner
    held = {token: profile for profile, members in whole.members.items() for token in members}
    assert all(held[token] == token for token in unnamed)


def test_the_earliest_receipt_of_a_signature_counts() -> None:
    late, early = packed(9, bytes(16), (("email", b"e" * 16),)), packed(4, bytes(16), (("email", b"e" * 16),))
    ((identifier_set, found),) = earliest([(b"s" * 16, late), (b"s" * 16, early)])
    assert (identifier_set, found.received_us) == (b"s" * 16, 4)
