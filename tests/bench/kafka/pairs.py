"""Records whose customers lie where two workers meet at them, or do not; alike in everything else."""

from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from itertools import count

from schemas.record import Pending, partition_of
from tests.bench.synthetic import Records, utc_now


def paired(customers: int, events: int, apart: bool, partitions: int) -> tuple[list[Pending], list[Pending]]:
    """One record of each signature, and `events` more.

    A customer's two identifiers lie in one partition, or (`apart`) in two that no two workers share: neither when
    they are dealt round (even and odd), nor when each is given a half.
    """

    @cache
    def token(kind: str, customer: int) -> str:
        home = customer % partitions
        away = partitions - 1 - home if apart and kind == "visitor" else home
        return next(found for found in _candidates(kind, customer) if _place(found, partitions) == away)

    records = Records(customers, utc_now(), token=token)
    return list(records.first_of_each()), list(records.some(events))


def _candidates(kind: str, customer: int) -> Iterator[str]:
    return (blake2b(f"{kind}{customer}/{salt}".encode(), digest_size=16).hexdigest() for salt in count())


def _place(token: str, partitions: int) -> int:
    return partition_of(bytes.fromhex(token), partitions)
