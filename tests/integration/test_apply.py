"""Definitions that several people change at once: nobody's answer is lost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from infra.adapters.postgres.control import PostgresControl
from processors.rebuild.definitions import apply_files, await_revision, start_rebuild, stored
from schemas.errors import DefinitionsMoved, StoreUnavailable
from tests.reading_world import NOW, ReadingWorld


def segment(name: str) -> list[tuple[str, str]]:
    text = f"segments: {{{name}: {{description: d, when: {{trait: lifetime_orders, op: gte, value: 3}}}}}}"
    return [(f"{name}.yaml", text)]


def wait(world: ReadingWorld, revision: int) -> int:
    return await_revision(world.services.control, revision, lambda _done: None, world.settle, 3)


def test_of_many_who_apply_at_once_nobody_is_lost(world: ReadingWorld) -> None:
    names = [f"mine_{n}" for n in range(6)]

    def apply(name: str) -> int:
        with closing(PostgresControl(world.databases.main)) as control:
            applied = apply_files(control, segment(name), NOW)
        assert applied.summary["added"] == [f"segments.{name}"]
        assert applied.revision is not None
        return applied.revision

    with ThreadPoolExecutor(len(names)) as pool:
        revisions = list(pool.map(apply, names))
    assert len(set(revisions)) == len(names)
    assert {wait(world, revision) for revision in revisions} == {max(revisions)}
    live = world.services.control.live()
    assert live.revision == max(revisions)
    assert set(names) <= stored(live).segments.keys()
    facts = world.execute("select count(*) from facts where type = 'definition.changed'")
    assert facts == [(len(names),)]


def test_a_rebuild_keeps_the_definitions_that_are_being_built(world: ReadingWorld) -> None:
    control = world.services.control
    first = apply_files(control, segment("mine"), NOW).revision
    assert first is not None
    start_rebuild(control, NOW)
    assert wait(world, first) == first + 1
    assert "mine" in stored(control.live()).segments


def test_the_same_applied_again_waits_for_the_revision_that_has_it(world: ReadingWorld) -> None:
    control = world.services.control
    first = apply_files(control, segment("mine"), NOW)
    again = apply_files(control, segment("mine"), NOW)
    assert again.summary["unchanged"] == ["segments.mine"]
    assert again.revision == first.revision


def test_what_was_made_from_older_definitions_is_not_set(world: ReadingWorld) -> None:
    control = world.services.control
    live = control.live()
    revision = apply_files(control, segment("mine"), NOW).revision
    with pytest.raises(DefinitionsMoved):
        control.add_revision("definition", live.definitions, "other", NOW, base=live.content_hash)
    newest = control.building()
    assert newest is not None
    assert newest.revision == revision


def test_a_revision_that_failed_by_itself_is_an_error(world: ReadingWorld) -> None:
    revision = apply_files(world.services.control, segment("mine"), NOW).revision
    assert revision is not None
    world.services.control.fail(revision, "the disk is full")
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        wait(world, revision)
