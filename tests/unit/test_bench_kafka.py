"""What the benches on Kafka rest on: customers that lie where they should, and sizes that are understood."""

import pytest

from schemas.record import decode, partition_of
from tests.bench.kafka.__main__ import main
from tests.bench.kafka.pairs import paired

PARTITIONS = 4


@pytest.mark.parametrize("apart", [False, True])
def test_a_customers_identifiers_lie_together_or_where_no_two_workers_share(apart: bool) -> None:
    warm, records = paired(20, 200, apart, PARTITIONS)
    assert (len(warm), len(records)) == (60, 200)
    pairs = {
        tuple(partition_of(bytes.fromhex(each.token), PARTITIONS) for each in decode(record.value).ids)
        for record in warm
        if len(decode(record.value).ids) == 2
    }
    assert pairs == ({(0, 3), (1, 2), (2, 1), (3, 0)} if apart else {(0, 0), (1, 1), (2, 2), (3, 3)})


def test_both_worlds_have_as_many_records_in_each_partition() -> None:
    counts = []
    for apart in (False, True):
        warm, _ = paired(40, 1, apart, PARTITIONS)
        places = [partition_of(record.key, PARTITIONS) for record in warm]
        counts.append([places.count(partition) for partition in range(PARTITIONS)])
    assert counts[0] == counts[1]


@pytest.mark.parametrize("wrong", ["events", "events=0", "events=many", "people=5"])
def test_a_size_that_is_not_one_is_refused_before_anything_starts(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--size", wrong])
    assert ended.value.code == 2
    assert "give one of" in capsys.readouterr().err
