"""The layout of a folded state and its monoids: what a slot holds, how two merge, what the clock prunes.

A state is one list: seven base slots, then the slots of the plan. Only integers, text, bytes, booleans, None and
sorted lists inside, so equal histories are equal bytes. Every merge is commutative and associative, with the
new state as identity. Keyed lists over their cap become the absorbing OVERFLOW, and their entries are kept beside the
state (`orders.tree`).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from schemas.record import EPOCH

State = list[Any]
Slot = Any

EVENT_COUNT, FIRST, LAST, TRAITS, ORDERS, REFUNDS, CANCELS = range(7)
BASE_SLOTS: Final = 7
OVERFLOW: Final = -1
ORDER_CAP: Final = 512  # a state of so many orders is 50 KB: beyond, reading it whole costs more than a tree

# A trait entry: [name, level, occurred_us, event key, form, value, partition, offset]. Greater wins: the stamp, and
# in one event the direct form. A correction (level 1) has an entry of its own beside the sources' (its name and
# CORRECTED), so that a withdrawal shows again what they say; `shown` puts it before them.
NAME, LEVEL, STAMP_US, STAMP_KEY, FORM, VALUE, PARTITION, OFFSET = range(8)
UNSET, PLAIN, JSON_TEXT, DIRECT, WITHDRAWN = range(5)
CORRECTED: Final = "\0"

# An order's base: [order id, source rank, occurred_us, event key, own amount, currency, base amount, bits,
# extras…]; a refund: [event key, order id, …] without rank and stamp key. Amounts are scaled (10^4) or None.
O_ID, O_RANK, O_US, O_KEY, O_OWN, O_CURRENCY, O_BASE, O_BITS, O_EXTRA = range(9)
R_KEY, R_ID, R_US, R_OWN, R_CURRENCY, R_BASE, R_BITS = range(7)

DAY_US: Final = 86_400_000_000
BUCKET_US: Final = 900_000_000  # zones change at quarters of an hour: inside one, the local day is mostly constant
DAYS_A_WORD: Final = 60
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_FIRST_DAY: Final = date.min.toordinal() - _EPOCH_ORDINAL + 2
_LAST_DAY: Final = date.max.toordinal() - _EPOCH_ORDINAL - 2
_US: Final = timedelta(microseconds=1)


class LocalDays:
    """Calendar days of a time zone as integers (0 = 1970-01-01), and where they begin.

    A day begins at its first instant after local midnight; `day` is the inverse of `start`, also where clocks
    change at midnight.
    """

    def __init__(self, time_zone: str) -> None:
        self._zone = ZoneInfo(time_zone)
        self.cache: dict[int, int] = {}
        self.start = lru_cache(maxsize=8_192)(self._start)

    def _start(self, day: int) -> int:
        """The first microsecond of a local day."""
        if not _FIRST_DAY <= day <= _LAST_DAY:
            return day * DAY_US  # beyond what a calendar holds: UTC will do
        at = datetime.combine(date.fromordinal(day + _EPOCH_ORDINAL), datetime.min.time(), self._zone)
        return (at.astimezone(UTC) - EPOCH) // _US

    def aware(self, local: datetime) -> datetime:
        """A time without zone as one of this zone."""
        return local.replace(tzinfo=self._zone)

    def day(self, at_us: int) -> int:
        """The local day of an instant."""
        bucket = at_us // BUCKET_US
        known = self.cache.get(bucket)
        if known is not None:
            return known
        day = at_us // DAY_US
        while at_us < self.start(day):
            day -= 1
        while at_us >= self.start(day + 1):
            day += 1
        begin = bucket * BUCKET_US
        if self.start(day) <= begin and begin + BUCKET_US <= self.start(day + 1):
            if len(self.cache) > 200_000:
                self.cache.clear()
            self.cache[bucket] = day
        return day


def iso_day(day: int) -> str:
    """A day number as 2026-05-03."""
    return date.fromordinal(day + _EPOCH_ORDINAL).isoformat()


# ---------------------------------------------------------------- merges


def add(a: int, b: int) -> int:
    return a + b


def add_pair(a: list[int], b: list[int]) -> list[int]:
    return [a[0] + b[0], a[1] + b[1]]


def least(a: Slot, b: Slot) -> Slot:
    """The smaller; None is nothing. Stamped values are lists that begin (occurred_us, event key)."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def greatest(a: Slot, b: Slot) -> Slot:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


def top_two(a: list[int], b: list[int]) -> list[int]:
    """The two largest, descending, with multiplicity."""
    return sorted(a + b, reverse=True)[:2]


def _by_day(stride: int, join: Callable[[list[Any], list[Any]], list[Any]]) -> Callable[[Slot, Slot], Slot]:
    """The merge of two flat lists [day, payload…, day, payload…] whose payloads of one day `join` joins."""

    def merge(a: list[Any], b: list[Any]) -> list[Any]:
        if not a or not b:
            return a or b
        if a[-stride] < b[0]:
            return a + b
        if b[-stride] < a[0]:
            return b + a
        cells = {a[i]: a[i + 1 : i + stride] for i in range(0, len(a), stride)}
        for i in range(0, len(b), stride):
            mine, theirs = cells.get(b[i]), b[i + 1 : i + stride]
            cells[b[i]] = theirs if mine is None else join(mine, theirs)
        return [x for day in sorted(cells) for x in (day, *cells[day])]

    return merge


merge_counts = _by_day(2, lambda a, b: [a[0] + b[0]])
merge_sums = _by_day(3, add_pair)
merge_lows = _by_day(2, min)
merge_highs = _by_day(2, max)
merge_earliest = _by_day(4, min)
merge_latest = _by_day(4, max)
merge_bitmaps = _by_day(2, lambda a, b: [a[0] | b[0]])


def merge_keyed(cap: int | None) -> Callable[[Slot, Slot], Slot]:
    """The merge of two sorted lists of entries [key, …]: the greater entry of a key wins."""

    def merge(a: Slot, b: Slot) -> Slot:
        if type(a) is int or type(b) is int:
            return OVERFLOW
        if not a or not b:
            return a or b
        entries = {entry[0]: entry for entry in a}
        for entry in b:
            mine = entries.get(entry[0])
            if mine is None or entry > mine:
                entries[entry[0]] = entry
        return sorted(entries.values()) if cap is None or len(entries) <= cap else OVERFLOW

    return merge


# ---------------------------------------------------------------- steps of the fold


def put(entries: list[list[Any]], entry: list[Any]) -> bool:
    """Insert or raise an entry of a sorted keyed list, in place; True when the list grew."""
    i = bisect_left(entries, entry[:1])
    if i < len(entries) and entries[i][0] == entry[0]:
        entries[i] = max(entries[i], entry)
        return False
    entries.insert(i, entry)
    return True


def shown(entries: list[list[Any]]) -> list[list[Any]]:
    """Trait entries as they hold: a correction, while it is not withdrawn, in the place of what sources say."""
    corrections = {entry[NAME][:-1]: entry for entry in entries if entry[LEVEL]}
    if not corrections:
        return entries
    found = {entry[NAME]: entry for entry in entries if not entry[LEVEL]}
    for name, entry in corrections.items():
        if entry[FORM] != WITHDRAWN:
            found[name] = [name, *entry[1:]]
    return [found[name] for name in sorted(found)]


class Monoid(NamedTuple):
    """A kind of slot: its empty value, its merge, and the width of its day cells (0: not pruned)."""

    empty: Callable[[], Slot]
    merge: Callable[[Slot, Slot], Slot]
    stride: int = 0


def _none() -> None:
    return None


MONOIDS: Final[dict[str, Monoid]] = {
    "count": Monoid(int, add),
    "sum": Monoid(lambda: [0, 0], add_pair),
    "min": Monoid(_none, least),
    "max": Monoid(_none, greatest),
    "first": Monoid(_none, least),
    "last": Monoid(_none, greatest),
    "top_two": Monoid(list, top_two),
    "days": Monoid(list, merge_bitmaps),
    "day_count": Monoid(list, merge_counts, 2),
    "day_sum": Monoid(list, merge_sums, 3),
    "day_min": Monoid(list, merge_lows, 2),
    "day_max": Monoid(list, merge_highs, 2),
    "day_first": Monoid(list, merge_earliest, 4),
    "day_last": Monoid(list, merge_latest, 4),
}


def cell_at(cells: list[Any], day: int, stride: int, empty: Sequence[Any]) -> int:
    """Index of the payload of a day's cell in a sorted flat list, inserting `empty` when there is none."""
    i = len(cells)
    while i and cells[i - stride] > day:
        i -= stride
    if i and cells[i - stride] == day:
        return i - stride + 1
    cells[i:i] = (day, *empty)
    return i + 1


def add_count(cells: list[int], day: int) -> None:
    cells[cell_at(cells, day, 2, (0,))] += 1


def add_sum(cells: list[int], day: int, amount: int) -> None:
    i = cell_at(cells, day, 3, (0, 0))
    cells[i] += 1
    cells[i + 1] += amount


def add_least(cells: list[Any], day: int, value: int) -> None:
    i = cell_at(cells, day, 2, (value,))
    cells[i] = min(cells[i], value)


def add_greatest(cells: list[Any], day: int, value: int) -> None:
    i = cell_at(cells, day, 2, (value,))
    cells[i] = max(cells[i], value)


def add_earliest(cells: list[Any], day: int, stamped: list[Any]) -> None:
    i = cell_at(cells, day, 4, stamped)
    cells[i : i + 3] = min(cells[i : i + 3], stamped)


def add_latest(cells: list[Any], day: int, stamped: list[Any]) -> None:
    i = cell_at(cells, day, 4, stamped)
    cells[i : i + 3] = max(cells[i : i + 3], stamped)


def add_day(words: list[int], day: int) -> None:
    """Set a day's bit in a sorted bitmap of 60 days per word."""
    words[cell_at(words, day // DAYS_A_WORD, 2, (0,))] |= 1 << day % DAYS_A_WORD


def add_top(stamps: list[int], at_us: int) -> None:
    """Keep the two largest stamps."""
    stamps.append(at_us)
    stamps.sort(reverse=True)
    del stamps[2:]


def drop_before(cells: list[Any], day: int, stride: int) -> list[Any]:
    """The cells of `day` and later."""
    i = 0
    while i < len(cells) and cells[i] < day:
        i += stride
    return cells[i:] if i else cells


# ---------------------------------------------------------------- bytes

_BIG: Final = 1  # extension type of an integer beyond 64 bits, big-endian two's complement
_ENCODER: Final = msgspec.msgpack.Encoder()


def read_big(code: int, data: memoryview) -> int:
    """The hook of decoders of states: integers beyond 64 bits."""
    if code != _BIG:
        raise ValueError(f"unknown extension {code} in a state")
    return int.from_bytes(data, "big", signed=True)


_DECODER: Final = msgspec.msgpack.Decoder(list[Any], ext_hook=read_big)


def _shield(value: Any) -> Any:
    """Integers beyond 64 bits as extensions; sums of absurd amounts must not stop a fold."""
    if isinstance(value, list):
        return [_shield(item) for item in value]
    if type(value) is int and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    return value


def pack(state: State) -> bytes:
    """The bytes of a state; equal states, equal bytes."""
    try:
        return _ENCODER.encode(state)
    except OverflowError:
        return _ENCODER.encode(_shield(state))


def unpack(data: bytes) -> State:
    """The state of `pack`ed bytes, fresh and free to fold into."""
    state: State = _DECODER.decode(data)
    return state
