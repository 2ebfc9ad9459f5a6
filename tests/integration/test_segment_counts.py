"""Sizes of segments are counted as members come and go, and always equal what counting the memberships says."""

from datetime import timedelta
from pathlib import Path

from infra.app.erasing import eraser
from processors.rebuild.definitions import apply_files, start_rebuild
from tests.reading_world import NOW, ReadingWorld


def counted(world: ReadingWorld) -> dict[int, int]:
    """By segment, from the memberships; and no other revision has counts."""
    live = world.services.control.live().revision
    assert {row[0] for row in world.execute("select distinct revision from segment_counts")} <= {live}
    sizes = world.execute(f"select segment, count(*) from memberships_r{live} group by segment")
    return {int(segment): int(size) for segment, size in sizes}


def shown(world: ReadingWorld) -> dict[int, int]:
    live = world.services.control.live().revision
    return world.reading.reads.segment_sizes(live)


def shop(world: ReadingWorld) -> None:
    for number in range(12):
        for order in range(1 + number % 3):
            world.purchase([("user_id", f"u{number}")], f"o{number}-{order}", "80.00", days_ago=1 + order)
    world.settle()


def test_counts_equal_the_memberships_through_events_timers_merges_erasures_and_swaps(
    world: ReadingWorld, tmp_path: Path
) -> None:
    shop(world)
    assert shown(world) == counted(world) != {}
    before = shown(world)
    world.clock.at = NOW + timedelta(days=120)  # windows close
    world.settle()
    assert shown(world) == counted(world) != before
    world.purchase([("user_id", "u1"), ("email", "ida@example.com")], "late-1", "30.00", days_ago=-120)
    world.purchase([("anonymous_id", "visitor-1")], "late-2", "30.00", days_ago=-120)
    world.send([("anonymous_id", "visitor-1"), ("email", "ida@example.com")], at=NOW + timedelta(days=120))
    world.settle()
    assert shown(world) == counted(world)
    parts = (world.databases.main, world.databases.vault, world.vault, tmp_path, "US", world.clock.now)
    with eraser(*parts) as erase:
        assert erase.erase("user_id", "u2").found
    world.settle()
    assert shown(world) == counted(world)
    start_rebuild(world.services.control, world.clock.at)
    world.settle()
    assert world.services.control.live().revision == 2
    assert shown(world) == counted(world) != {}
    changed = "segments: {buyers: {description: Bought, when: {trait: lifetime_orders, op: gte, value: 1}}}"
    apply_files(world.services.control, [("more.yaml", changed)], world.clock.at)
    world.settle()
    assert world.services.control.live().revision == 3
    assert shown(world) == counted(world)
    assert world.reading.segments.show("buyers")["size"] == len(world.execute("select 1 from profiles_r3"))


def test_a_page_of_the_list_shows_what_each_segment_shows_alone(world: ReadingWorld) -> None:
    shop(world)
    segments = world.reading.segments
    listed, total = segments.listed(0, 3)
    rest, _ = segments.listed(3, 100)
    assert total == len(segments.overview()) == len(listed) + len(rest)
    for each in [*listed, *rest]:
        alone = segments.show(each["name"])
        assert {name: alone[name] for name in alone if name != "when"} == {
            name: each[name] for name in each if name != "trend"
        }
        assert each["trend"] == [size for _, size in segments.trends(30, [each["name"]])[each["name"]]]
