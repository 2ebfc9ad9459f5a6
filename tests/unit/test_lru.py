"""What was used last is remembered, and no more of it than asked for."""

from infra.adapters.machine.lru import Recent


def _keys(recent: Recent, number: int) -> list[int]:
    return [each for each in range(number) if recent.get(bytes([each])) is not None]


def test_only_what_was_used_least_recently_is_forgotten() -> None:
    recent = Recent(10)
    for number in range(10):
        recent.put(bytes([number]), b"x")
    assert recent.get(bytes([0])) == b"x"
    recent.put(bytes([10]), b"x")
    assert _keys(recent, 11) == [0, *range(2, 11)]
    recent.put(bytes([2]), b"y")
    recent.put(bytes([11]), b"x")
    assert recent.get(bytes([2])) == b"y"
    recent.clear()
    assert _keys(recent, 12) == []
