"""Violations to plant, so that the checker itself is tested. Each corrupts a random place in an open transaction."""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from psycopg2.extensions import connection as Connection

Plant = Callable[[Connection, Random], None]


def _run(connection: Connection, statement: str, values: tuple[Any, ...] = ()) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.rowcount


def _pick(connection: Connection, random: Random, statement: str) -> tuple[Any, ...]:
    """A random row of an ordered query's result."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        found = cursor.fetchall()
    assert found, f"nothing to spoil: {statement}"
    return random.choice(found)


def hold_still(connection: Connection) -> None:
    """Call before planting: the worker's writes then wait for the rollback and cannot conflict with the plant."""
    _run(connection, "lock table progress, log_head, marks in share row exclusive mode")


def _live(connection: Connection) -> int:
    return int(_pick(connection, Random(0), "select revision from revisions where state = 'live'")[0])


def _spoil(connection: Connection, random: Random, change: Callable[[dict[str, Any]], bool]) -> None:
    """Rewrite one record that counts: the first, in random order, that `change` can alter."""
    with connection.cursor() as cursor:
        cursor.execute(
            'select l.partition, l."offset", l.value from event_log l join register r'
            ' on r.partition = l.partition and r."offset" = l."offset" order by 1, 2'
        )
        rows = cursor.fetchall()
    random.shuffle(rows)
    for partition, offset, value in rows:
        record = json.loads(bytes(value))
        if change(record):
            spoilt = json.dumps(record, separators=(",", ":")).encode()
            statement = 'update event_log set value = %s where partition = %s and "offset" = %s'
            assert _run(connection, statement, (spoilt, partition, offset)) == 1
            return
    raise AssertionError("no record to spoil")


def dropped_event(connection: Connection, random: Random) -> None:
    """An acknowledged record is gone from the log."""
    place = _pick(connection, random, 'select partition, "offset" from register order by 1, 2')
    assert _run(connection, 'delete from event_log where partition = %s and "offset" = %s', place) == 1


def dropped_tail(connection: Connection, random: Random) -> None:
    """A partition's newest record and its dedup row are gone, and all heads pretend that it never existed."""
    tails = (
        "select h.partition, h.next_offset - 1 from log_head h join register r"
        ' on r.partition = h.partition and r."offset" = h.next_offset - 1 order by 1'
    )
    row = _pick(connection, random, tails)
    for table in ("event_log", "register", "not_applied"):
        _run(connection, f'delete from {table} where partition = %s and "offset" = %s', row)
    _run(connection, "update log_head set next_offset = %s where partition = %s", row[::-1])
    _run(connection, "update progress set next_offset = %s where partition = %s", row[::-1])


def doubled_event(connection: Connection, random: Random) -> None:
    """A record is in the log twice, and the second copy is not set aside."""
    place = _pick(connection, random, 'select partition, "offset" from register order by 1, 2')
    _append_copy(connection, place, lambda value: value)


def ghost_event(connection: Connection, random: Random) -> None:
    """A record that nobody sent, registered like any other."""
    place = _pick(connection, random, 'select partition, "offset" from register order by 1, 2')

    def changed(value: bytes) -> bytes:
        record = json.loads(value)
        record["message_id"] = f"ghost-{random.randrange(10**9)}"
        record["id"] = f"{random.randrange(2**128):032x}"
        return json.dumps(record).encode()

    offset, value = _append_copy(connection, place, changed)
    _run(
        connection,
        'insert into register (event_key, digest, partition, "offset", signature, verdict)'
        ' select %s, digest, partition, %s, signature, 0 from register where partition = %s and "offset" = %s',
        (json.loads(value)["id"], offset, *place),
    )


def _append_copy(
    connection: Connection, place: tuple[Any, ...], changed: Callable[[bytes], bytes]
) -> tuple[int, bytes]:
    partition = place[0]
    with connection.cursor() as cursor:
        cursor.execute('select value from event_log where partition = %s and "offset" = %s', place)
        row = cursor.fetchone()
        assert row is not None, f"no record at {place}"
        value = changed(bytes(row[0]))
        cursor.execute(
            "update log_head set next_offset = next_offset + 1 where partition = %s returning next_offset - 1",
            (partition,),
        )
        head = cursor.fetchone()
        assert head is not None, f"no head of partition {partition}"
        cursor.execute("insert into event_log values (%s, %s, %s)", (partition, head[0], value))
        cursor.execute("update progress set next_offset = next_offset + 1 where partition = %s", (partition,))
    return int(head[0]), value


def altered_amount(connection: Connection, random: Random) -> None:
    """One digit of an amount differs."""

    def change(record: dict[str, Any]) -> bool:
        amount = str(record.get("properties", {}).get("revenue", ""))
        if not amount:
            return False
        digit = str((int(amount[0]) + 1) % 10) if amount[0].isdigit() else "7"
        record["properties"]["revenue"] = digit + amount[1:]
        return True

    _spoil(connection, random, change)


def altered_time(connection: Connection, random: Random) -> None:
    """The last digit of the seconds of the event's time differs."""

    def change(record: dict[str, Any]) -> bool:
        text = record["occurred_at"]
        second = (int(text[18]) + 1) % 10
        record["occurred_at"] = f"{text[:18]}{second}{text[19:]}"
        return True

    _spoil(connection, random, change)


def altered_digest(connection: Connection, random: Random) -> None:
    """One bit of the digest differs."""

    def change(record: dict[str, Any]) -> bool:
        record["digest"] = f"{int(record['digest'], 16) ^ (1 << random.randrange(128)):032x}"
        return True

    _spoil(connection, random, change)


def altered_token(connection: Connection, random: Random) -> None:
    """One bit of an identifier's token differs."""

    def change(record: dict[str, Any]) -> bool:
        each = random.choice(record["ids"])
        each["token"] = f"{int(each['token'], 16) ^ (1 << random.randrange(128)):032x}"
        return True

    _spoil(connection, random, change)


def applied_twice(connection: Connection, random: Random) -> None:
    """A profile counts one event too many."""
    table = f"profiles_r{_live(connection)}"
    (profile,) = _pick(connection, random, f"select profile_id from {table} order by 1")
    _run(connection, f"update {table} set event_count = event_count + 1 where profile_id = %s", (profile,))


def duplicate_not_set_aside(connection: Connection, random: Random) -> None:
    """The second copy of an event is treated as one that counts."""
    place = _pick(
        connection, random, 'select partition, "offset" from not_applied where verdict in (1, 2) order by 1, 2'
    )
    assert _run(connection, 'delete from not_applied where partition = %s and "offset" = %s', place) == 1


def lost_conflict(connection: Connection, random: Random) -> None:
    """Different content under a known id left no dead letter."""
    (key,) = _pick(connection, random, "select distinct event_key from not_applied where verdict = 2 order by 1")
    assert _run(connection, "delete from dead_letters where event_id = %s", (key,)) >= 1


def lost_dead_letter(connection: Connection, random: Random) -> None:
    """A refused item was reported as a dead letter but is not one."""
    (letter,) = _pick(connection, random, "select id from dead_letters where rule <> 'id_reused' order by 1")
    assert _run(connection, "delete from dead_letters where id = %s", (letter,)) == 1


def applied_after_erasure(connection: Connection, random: Random) -> None:
    """A token is erased, but what was derived from its events stays."""
    (token,) = _pick(connection, random, "select token from tokens order by 1")
    _run(connection, "insert into erased_tokens values (%s, now())", (token,))


def unregistered_event(connection: Connection, random: Random) -> None:
    """An event in the log has no verdict."""
    (key,) = _pick(connection, random, "select event_key from register order by 1")
    assert _run(connection, "delete from register where event_key = %s", (key,)) == 1


def ghost_of_register(connection: Connection, random: Random) -> None:
    """A registered event that is not in the log."""
    key, other = f"{random.randrange(2**128):032x}", f"{random.randrange(2**128):032x}"
    place = _pick(connection, random, "select partition, next_offset from log_head order by 1")
    _run(connection, "insert into register values (%s, %s, %s, %s, %s, 0)", (key, other, *place, other))


def stale_checkpoint(connection: Connection, random: Random) -> None:
    """A partition's progress lags behind what was applied."""
    (partition,) = _pick(connection, random, "select partition from log_head where next_offset > 9 order by 1")
    back = random.randrange(1, 9)
    statement = "update progress set next_offset = next_offset - %s where revision = %s and partition = %s"
    assert _run(connection, statement, (back, _live(connection), partition)) == 1


def missing_change(connection: Connection, random: Random) -> None:
    """A change was never published."""
    (id_,) = _pick(connection, random, "select id from changes order by 1")
    assert _run(connection, "delete from changes where id = %s", (id_,)) == 1


def doubled_change(connection: Connection, random: Random) -> None:
    """A change is published twice."""
    (id_,) = _pick(connection, random, "select id from changes order by 1")
    with connection.cursor() as cursor:
        cursor.execute("insert into feed_batches (seq) select max(seq) + 1 from feed_batches returning batch")
        row = cursor.fetchone()
        assert row is not None, "insert … returning gave no row"
        cursor.execute(
            "insert into changes select %s, 0, id, type, profile_id, version, name, old, new, at_us, cause,"
            " cause_event, cause_definition from changes where id = %s",
            (row[0], id_),
        )


def lost_member(connection: Connection, random: Random) -> None:
    """A member of a segment is not listed."""
    table = f"memberships_r{_live(connection)}"
    pair = _pick(connection, random, f"select segment, profile_id from {table} order by 1, 2")
    assert _run(connection, f"delete from {table} where segment = %s and profile_id = %s", pair) == 1


def wrong_owner(connection: Connection, random: Random) -> None:
    """An identifier set belongs to another customer."""
    signature, owner = _pick(connection, random, "select signature, profile_id from evidence order by 1")
    other = owner
    while other == owner:
        (other,) = _pick(connection, random, "select profile_id from evidence order by signature")
    assert _run(connection, "update evidence set profile_id = %s where signature = %s", (other, signature)) == 1


def lost_profile(connection: Connection, random: Random) -> None:
    """A customer is not shown."""
    table = f"profiles_r{_live(connection)}"
    (profile,) = _pick(connection, random, f"select profile_id from {table} order by 1")
    assert _run(connection, f"delete from {table} where profile_id = %s", (profile,)) == 1


# ---------------------------------------------------------------- the feed


def _raise_versions(connection: Connection, profile: str, above: int, by: int) -> None:
    """Shift all later versions of a profile, to make room for one more or close the gap of a missing one."""
    statement = "update changes set version = version + %s where profile_id = %s and version > %s"
    _run(connection, statement, (by, profile, above))
    table = f"profiles_r{_live(connection)}"
    _run(connection, f"update {table} set version = version + %s where profile_id = %s", (by, profile))
    _run(connection, "update ended_profiles set version = version + %s where profile_id = %s", (by, profile))


def missing_change_without_hole(connection: Connection, random: Random) -> None:
    """A change with consequences was never published, and later versions leave no gap."""
    decided = "select id, profile_id, version from changes where type in ('segment', 'lifecycle', 'risk') order by 1"
    id_, profile, version = _pick(connection, random, decided)
    assert _run(connection, "delete from changes where id = %s", (id_,)) == 1
    _raise_versions(connection, profile, version, -1)


def doubled_change_with_another_id(connection: Connection, random: Random) -> None:
    """The same thing is published twice in a row, as two changes with their own ids and versions."""
    told = "select batch, idx, profile_id, version from changes where type <> 'erased' order by id"
    batch, idx, profile, version = _pick(connection, random, told)
    _raise_versions(connection, profile, version, 1)
    _run(connection, "update changes set idx = idx + 1000000 where batch = %s and idx > %s", (batch, idx))
    columns = "type, profile_id, version + 1, name, old, new, at_us, cause, cause_event, cause_definition"
    _run(
        connection,
        f"insert into changes select batch, idx + 1, %s, {columns} from changes where batch = %s and idx = %s",
        (f"{random.randrange(2**128):032x}", batch, idx),
    )


def changes_out_of_order(connection: Connection, random: Random) -> None:
    """Two changes of a profile are in the feed in the wrong order."""
    pairs = (
        "select a.id, b.id from changes a join changes b using (profile_id)"
        " where b.version = a.version + 1 order by a.id"
    )
    first, second = _pick(connection, random, pairs)
    swap = (
        "update changes c set version = o.version from changes o"
        " where (c.id, o.id) in ((%s::uuid, %s::uuid), (%s::uuid, %s::uuid))"
    )
    assert _run(connection, swap, (first, second, second, first)) == 2


def forgotten_end(connection: Connection, random: Random) -> None:
    """A customer was merged into another, but no change says so."""
    (id_,) = _pick(connection, random, "select id from changes where name = 'merged_into' order by id")
    assert _run(connection, "delete from changes where id = %s", (id_,)) == 1


def wrong_stage(connection: Connection, random: Random) -> None:
    """A profile's stage is not the one its feed ends with."""
    table = f"profiles_r{_live(connection)}"
    (profile,) = _pick(connection, random, f"select profile_id from {table} order by 1")
    _run(connection, f"update {table} set lifecycle = lifecycle || '_' where profile_id = %s", (profile,))


def wrong_risk(connection: Connection, random: Random) -> None:
    """A profile's risk is not the one its feed ends with."""
    table = f"profiles_r{_live(connection)}"
    (profile,) = _pick(connection, random, f"select profile_id from {table} order by 1")
    _run(connection, f"update {table} set risk = risk || '_' where profile_id = %s", (profile,))


def change_without_cause(connection: Connection, random: Random) -> None:
    """A change names an unknown event as its cause."""
    (id_,) = _pick(connection, random, "select id from changes where cause_event is not null order by id")
    spoilt = f"{random.randrange(2**128):032x}"
    assert _run(connection, "update changes set cause_event = %s where id = %s", (spoilt, id_)) == 1


def miscounted_day(connection: Connection, random: Random) -> None:
    """A day counts one entry too many: two workers counted the same one."""
    segment, day = _pick(connection, random, "select distinct segment, day from segment_days order by 1, 2")
    statement = "update segment_days set entered = entered + 1 where segment = %s and day = %s"
    assert _run(connection, statement, (segment, day)) >= 1


PLANTS: Mapping[str, tuple[Plant, frozenset[str]]] = {
    plant.__name__: (plant, frozenset(rules.split()))
    for plant, rules in (
        (dropped_event, "I1.missing I1.gap"),
        (dropped_tail, "I1.missing"),
        (doubled_event, "I2.twice"),
        (ghost_event, "I1.ghost"),
        (altered_amount, "I1.altered"),
        (altered_time, "I1.altered"),
        (altered_digest, "I1.altered"),
        (altered_token, "I1.altered I1.token I1.vault"),
        (applied_twice, "I3.count"),
        (duplicate_not_set_aside, "I2.twice"),
        (lost_conflict, "I2.dead_letter"),
        (lost_dead_letter, "I2.dead_letter"),
        (applied_after_erasure, "E.evidence E.profile E.token"),
        (unregistered_event, "I2.lost"),
        (ghost_of_register, "I2.ghost"),
        (stale_checkpoint, "I2.progress"),
        (missing_change, "I6.gap"),
        (missing_change_without_hole, "I6.missing I6.doubled I6.segment I6.days"),
        (doubled_change, "I6.twice"),
        (doubled_change_with_another_id, "I6.doubled"),
        (changes_out_of_order, "I6.order"),
        (forgotten_end, "I6.missing"),
        (wrong_stage, "I6.missing"),
        (wrong_risk, "I6.missing"),
        (change_without_cause, "I6.cause"),
        (miscounted_day, "I6.days"),
        (lost_member, "I6.segment I3.segment"),
        (wrong_owner, "I3.identity"),
        (lost_profile, "I3.missing"),
    )
}
"""Each with the rules of which at least one must find it."""
