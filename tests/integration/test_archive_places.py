"""Files of builds that knew neither the place nor the flags: read as 0 and none, also once they are merged."""

from typing import Any

import msgspec
import pyarrow as pa
import pytest

from schemas.record import Record
from tests.archive_data import record
from tests.integration.test_archive_merging import merge_all
from tests.integration.test_sql import Data, data, empty  # noqa: F401  # fixtures

WHO = "customer 1"


def placed(number: int, n: int, *flags: str) -> Record:
    return msgspec.structs.replace(record(number, WHO), v=2, n=n, flags=list(flags))


def write(data: Data, *records: Record, old: bool = False) -> None:  # noqa: F811
    """A file for each record, as this build or an earlier one would have written it."""
    add = data.archive.add

    def of_then(partition: int, end: int, generation: int, rows: pa.Table, clear: str = "") -> Any:
        return add(partition, end, generation, rows.drop_columns(["n", "flags"]), clear)

    for each in records:
        data.add([each])
        with pytest.MonkeyPatch.context() as patch:
            if old:
                patch.setattr(data.archive, "add", of_then)
            data.archiver(1).flush()


def told(data: Data) -> list[list[Any]]:  # noqa: F811
    return data.rows("select message_id, n, flags from events order by occurred_at, received_at, n, id")


def test_files_with_and_without_the_columns_and_the_tail_say_one_thing(data: Data) -> None:  # noqa: F811
    old = [record(number, WHO) for number in range(20)]
    new = [placed(20, 7, "bot"), placed(21, 2), placed(22, 0, "large", "mended")]
    tail = [placed(23, 1, "time_unreadable"), record(24, WHO)]
    write(data, *old, old=True)
    write(data, *new)
    data.add(tail)
    expected: list[list[Any]] = [[each.message_id, each.n, each.flags] for each in [*old, *new, *tail]]
    assert told(data) == expected
    assert merge_all(data.archive) > 0
    assert told(data) == expected
    assert data.archive.verify() == []
