"""What an import remembers, in memory and beyond it."""

import random
from contextlib import closing

from ingest.files.spill import RefusedLine, RefusedLines, SpillMap


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_map_that_spills_is_a_dict() -> None:
    rnd, expected = random.Random(7), dict[bytes, int]()
    with closing(SpillMap[int](most=10)) as found:
        for _ in range(3_000):
            each = key(rnd.randrange(200))
            if rnd.random() < 0.2:
                expected.pop(each, None)
                found.remove(each)
            else:
                expected[each] = expected.get(each, 0) + 1
                assert found.count(each) == expected[each]
        assert {each: found.get(each) for each in map(key, range(200))} == {
            each: expected.get(each) for each in map(key, range(200))
        }
        assert found
        for each in expected:
            found.remove(each)
        assert not found


def test_a_map_holds_bytes_too() -> None:
    with closing(SpillMap[bytes](most=1)) as found:
        for number in range(5):
            found[key(number)] = key(number * 2)
        assert [found.get(key(number)) for number in range(6)] == [*map(key, (0, 2, 4, 6, 8)), None]


def test_refused_lines_are_read_in_order_as_often_as_one_likes() -> None:
    lines = [RefusedLine(f"f{n % 3}.csv", n, 'is no amount: "é"') for n in range(500)]
    with closing(RefusedLines(most_bytes=100)) as found:
        for line in lines:
            found.append(line)
        assert len(found) == 500
        assert next(iter(found)) == lines[0]
        found.append(RefusedLine("x", 1, "last"))
        assert list(found) == list(found) == [*lines, RefusedLine("x", 1, "last")]
