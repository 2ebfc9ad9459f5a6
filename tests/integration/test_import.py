"""`touchfold import` by its command, over a data folder of its own: counts, sums, repeats, kills, dead letters."""

import csv
import gzip
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from infra.app.bootstrap import session
from infra.app.vault import vault_of
from tests.integration.running import command, environment, result

ROOT: Final = Path(__file__).parents[2]
CDNOW: Final = ROOT / "examples/cdnow.yaml"
JOURNEY: Final = ROOT / "examples/complete_journey.yaml"
PURCHASES: Final = ROOT / "tests/data/cdnow/purchases.csv"
BASKETS: Final = ROOT / "tests/data/complete_journey/transactions.parquet"

Totals = dict[str, tuple[int, Decimal]]


def cents(value: object) -> Decimal:
    return Decimal(str(value)).quantize(Decimal("0.01"))


def cdnow_totals(path: Path) -> Totals:
    """Purchases and dollars of each customer, straight from the file."""
    counts: Counter[str] = Counter()
    sums: dict[str, Decimal] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for row in csv.DictReader(lines):
            counts[row["customer_id"]] += 1
            sums[row["customer_id"]] = sums.get(row["customer_id"], Decimal(0)) + Decimal(row["dollar_value"])
    return {customer: (count, cents(sums[customer])) for customer, count in counts.items()}


def journey_totals(path: Path) -> Totals:
    """Baskets and sales of each household, straight from the file."""
    table = pq.read_table(path, columns=["household_id", "basket_id", "sales_value"])
    baskets: dict[str, set[int]] = {}
    sums: dict[str, Decimal] = {}
    for household, basket, value in zip(*(column.to_pylist() for column in table.columns), strict=True):
        baskets.setdefault(str(household), set()).add(basket)
        sums[str(household)] = sums.get(str(household), Decimal(0)) + Decimal(repr(value)).quantize(Decimal("0.0001"))
    return {household: (len(ids), cents(sums[household])) for household, ids in baskets.items()}


def profile_totals(data: Path, kind: str) -> Totals:
    """Orders and revenue of each profile by its identifier, as stored (`profiles` in SQL, values from the vault)."""
    rows = result("sql", "select profile_id, lifetime_orders, lifetime_revenue from profiles", "--data", str(data))
    by_id = {row["profile_id"].replace("-", ""): row for row in rows}
    with session(data) as here:
        opened = vault_of(here).open([bytes.fromhex(each) for each in by_id])
    assert {each.kind for each in opened.values()} == {kind}
    return {
        each.value: (int(by_id[token.hex()]["lifetime_orders"]), cents(by_id[token.hex()]["lifetime_revenue"]))
        for token, each in opened.items()
    }


def sql_totals(data: Path) -> tuple[int, Decimal]:
    (row,) = result("sql", "select count(*) n, sum(revenue) s from events", "--data", str(data))
    return int(row["n"]), cents(row["s"])


def imported(data: Path, mapping: Path, *files: Path) -> dict[str, Any]:
    """The JSON of an import that must succeed; all of Complete Journey takes a minute where nothing else runs."""
    arguments = ["import", *map(str, files), "--mapping", str(mapping), "--data", str(data), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli.main", *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def counts(found: dict[str, Any]) -> tuple[int, int, int, int]:
    return found["events"], found["accepted"], found["duplicates"], len(found["refused"])


def test_cdnow_counts_every_purchase_once_plain_or_packed_and_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected = cdnow_totals(PURCHASES)
    lines = sum(count for count, _ in expected.values())
    assert counts(imported(data, CDNOW, PURCHASES)) == (lines, lines, 0, 0)
    assert profile_totals(data, "user_id") == expected
    packed = tmp_path / "again.csv.gz"
    packed.write_bytes(gzip.compress(PURCHASES.read_bytes()))
    assert counts(imported(data, CDNOW, packed)) == (lines, 0, lines, 0)
    assert sql_totals(data) == (lines, sum(total for _, total in expected.values()))
    assert profile_totals(data, "user_id") == expected


def test_baskets_are_counted_once_by_profile_and_by_sql(tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected = journey_totals(BASKETS)
    baskets = sum(count for count, _ in expected.values())
    assert counts(imported(data, JOURNEY, BASKETS)) == (baskets, baskets, 0, 0)
    assert counts(imported(data, JOURNEY, BASKETS)) == (baskets, 0, baskets, 0)
    assert profile_totals(data, "loyalty_card") == expected
    assert sql_totals(data) == (baskets, sum(total for _, total in expected.values()))
    (row,) = result("sql", "select sum(amount) a from order_lines", "--data", str(data))
    assert cents(row["a"]) == sum(total for _, total in expected.values())
    query = "select count(*) n from events where sealed_names <> ['context.traits']"
    (row,) = result("sql", query, "--data", str(data))
    assert row["n"] == 0, "all but the card is readable by SQL"


@pytest.mark.kill
def test_an_import_killed_after_an_append_is_finished_by_running_it_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected = cdnow_totals(PURCHASES)
    lines = sum(count for count, _ in expected.values())
    arguments = ("import", str(PURCHASES), "--mapping", str(CDNOW), "--data", str(data), "--json")
    killed = command(*arguments, TEST="1", FAILPOINT="import.after_append:1")
    assert killed.returncode == -signal.SIGKILL
    again = imported(data, CDNOW, PURCHASES)
    assert counts(again) == (lines, lines - 2_000, 2_000, 0), "what was in the log was applied before it was asked for"
    assert profile_totals(data, "user_id") == expected
    assert sql_totals(data) == (lines, sum(total for _, total in expected.values()))


TILL: Final = """
source: tills
format: csv
type: pos.purchase
id: receipt
identifiers: {loyalty_card: card}
occurred_at: {column: day, format: "%Y-%m-%d"}
properties: {order_id: receipt, revenue: {column: paid, money: USD}}
"""


def test_refused_lines_are_told_with_their_number_and_kept_as_dead_letters(tmp_path: Path) -> None:
    data, mapping, file = tmp_path / "data", tmp_path / "tills.yaml", tmp_path / "tills.csv"
    mapping.write_text(TILL)
    file.write_text(
        "receipt,card,day,paid\n"
        "1,c1,2024-01-01,5.00\n"
        "2,c1,yesterday,5.00\n"
        "3,,2024-01-01,5.00\n"
        "4,c1,2024-01-01,five\n"
        "1,c1,2024-01-01,5.00\n"
        "1,c1,2024-01-01,6.00\n"
        "5,c1\n"
        "6,c2,2024-01-02,7.00\n"
    )
    found = imported(data, mapping, file)
    assert counts(found) == (8, 2, 1, 5)
    told = {each["line"]: each["reason"] for each in found["refused"]}
    assert sorted(told) == [3, 4, 5, 7, 8]
    assert told[3] == "occurred_at: is not a time in the format %Y-%m-%d"
    assert "identifier" in told[4]
    assert "different content" in told[7]
    letters = result("dead-letters", "list", "--data", str(data))
    assert [letter["stage"] for letter in letters] == ["import"] * 5
    assert {letter["rule"] for letter in letters} == {"bad_time", "no_identifier", "bad_amount", "id_reused", "bad_csv"}
    (time,) = [letter for letter in letters if letter["rule"] == "bad_time"]
    shown = json.loads(command("dead-letters", "show", time["id"], "--data", str(data), "--json").stdout)
    assert shown["content"]["row"]["day"] == "yesterday"
    assert shown["content"]["line"] == 3

    file.write_text(
        file.read_text().replace("yesterday", "2024-01-03").replace("6,c2,2024-01-02,7.00", "6,c2,2024-01-02,8")
    )
    found = imported(data, mapping, file)
    assert counts(found) == (8, 1, 2, 5), "the mended line comes in; a changed one is told, never counted twice"
    assert sql_totals(data) == (3, Decimal("17.00"))
    assert len(result("dead-letters", "list", "--data", str(data))) == 6, "a refusal that comes again is one letter"


def test_a_preview_stores_nothing_and_a_mapping_that_does_not_fit_names_the_columns(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shown = result("import", str(PURCHASES), "--mapping", str(CDNOW), "--preview", "--data", str(data))
    assert shown[0]["item"]["properties"]["revenue"] == "11.77"
    assert not data.exists()
    done = command("import", str(BASKETS), "--mapping", str(CDNOW), "--data", str(data))
    assert done.returncode == 2
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(CDNOW.read_text().replace("customer_id", "custmer_id"))
    done = command("import", str(PURCHASES), "--mapping", str(wrong), "--data", str(data))
    assert done.returncode == 1
    assert "did you mean 'customer_id'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_format_of_the_time_stops_before_a_thousand_dead_letters(tmp_path: Path) -> None:
    data, wrong = tmp_path / "data", tmp_path / "wrong.yaml"
    wrong.write_text(CDNOW.read_text().replace("%Y-%m-%d", "%d.%m.%Y"))
    done = command("import", str(PURCHASES), "--mapping", str(wrong), "--data", str(data))
    assert done.returncode == 1
    assert "line 2: occurred_at: is not a time in the format" in done.stderr
    assert result("dead-letters", "list", "--data", str(data)) == []


@pytest.mark.long
@pytest.mark.large
@pytest.mark.timeout(1_200)
def test_all_of_cdnow_is_equal_to_the_file_to_the_cent(tmp_path: Path, shared_data: Path) -> None:
    data, path = tmp_path / "data", shared_data / "cdnow/cdnow_master.csv.gz"
    expected = cdnow_totals(path)
    assert counts(imported(data, CDNOW, path)) == (69_659, 69_659, 0, 0)
    assert counts(imported(data, CDNOW, path)) == (69_659, 0, 69_659, 0)
    assert sql_totals(data) == (69_659, Decimal("2500315.63"))
    totals = profile_totals(data, "user_id")
    assert len(totals) == 23_570
    assert totals == expected


@pytest.mark.long
@pytest.mark.large
@pytest.mark.timeout(1_800)
def test_all_of_complete_journey_is_equal_to_its_reference(tmp_path: Path, shared_data: Path) -> None:
    data, folder = tmp_path / "data", shared_data / "complete_journey"
    path = folder / "transactions.parquet"
    assert counts(imported(data, JOURNEY, path)) == (155_848, 155_848, 0, 0)
    assert counts(imported(data, JOURNEY, path)) == (155_848, 0, 155_848, 0)
    reference = json.loads((folder / "reference/totals.json").read_text())
    assert sql_totals(data) == (reference["baskets"], cents(reference["sales"]))
    totals = profile_totals(data, "loyalty_card")
    assert totals == journey_totals(path)
    assert (len(totals), sum(total for _, total in totals.values())) == (2_469, Decimal("4596039.58"))
    names = {
        "retail_disc": "retail_discount",
        "coupon_disc": "coupon_discount",
        "coupon_match_disc": "coupon_match_discount",
    }
    sums = ", ".join(f"sum(cast(properties->>'{ours}' as decimal(18,4))) {theirs}" for theirs, ours in names.items())
    months = "select strftime(occurred_at, '%Y-%m') ym, count(*) baskets, sum(revenue) sales from events group by 1"
    (row,) = result("sql", f"select {sums} from events", "--data", str(data))
    assert {name: cents(row[name]) for name in names} == {name: cents(reference[name]) for name in names}
    found = {
        row["ym"]: (int(row["baskets"]), cents(row["sales"])) for row in result("sql", months, "--data", str(data))
    }
    with (folder / "reference/sales_by_month.csv").open() as lines:
        assert found == {row["ym"]: (int(row["baskets"]), cents(row["sales"])) for row in csv.DictReader(lines)}


def own_peak(pid: int) -> int:
    """The most memory a process had so far, in KiB: its own, without the server that it started. 0: it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


@pytest.mark.long
@pytest.mark.timeout(3_600)
def test_a_million_refused_lines_are_all_told_in_flat_memory(tmp_path: Path) -> None:
    """Peak memory of the command, a tenth of the lines against all of them."""
    peaks = []
    for number in (100_000, 1_000_000):
        path, mapping = tmp_path / f"{number}.csv", tmp_path / "till.yaml"
        with path.open("w") as file:
            file.write("card,day,price\n")
            file.writelines(f"c{n},2026-01-0{n % 9 + 1},{'12.50' if n < 3 else 'twelve'}\n" for n in range(number))
        mapping.write_text(
            "{source: till, format: csv, type: pos.purchase, identifiers: {loyalty_card: card},"
            " occurred_at: {column: day, format: '%Y-%m-%d'}, properties: {revenue: {column: price, money: USD}}}"
        )
        out = tmp_path / "out.json"
        arguments = [
            "import",
            str(path),
            "--mapping",
            str(mapping),
            "--data",
            str(tmp_path / f"data{number}"),
            "--json",
        ]
        with out.open("w") as answer:
            process = subprocess.Popen([sys.executable, "-m", "infra.cli.main", *arguments], stdout=answer)
        peak = 0
        while process.poll() is None:
            peak = max(peak, own_peak(process.pid))
            time.sleep(0.1)
        assert process.returncode == 0
        found = json.loads(out.read_text())
        assert counts(found) == (number, 3, 0, number - 3)
        assert found["refused"][-1]["line"] == number + 1
        peaks.append(peak)
    assert peaks[1] < peaks[0] * 1.2, peaks
