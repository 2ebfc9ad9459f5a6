"""`touchfold import`: a first import without a mapping, the order in which people are met, what the report says."""

import json
from pathlib import Path
from typing import Any, Final

from tests.integration.running import command, result

SALES: Final = (
    "customer_id,order_id,date,total_eur\nc1,A2,2024-05-02,20.00\nc2,A3,2024-05-03,1.50\nc1,A1,2024-05-01,10.00\n"
)


def imported(data: Path, *arguments: str) -> dict[str, Any]:
    found = result("import", *arguments, "--data", str(data))
    assert isinstance(found, dict)
    return found


def test_a_first_import_is_one_command_and_a_look(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "sales.csv"
    file.write_text(SALES)
    looked = command("import", str(file), "--data", str(data))
    assert looked.returncode == 1
    assert "type: purchase.completed" in looked.stdout
    assert "nothing was imported: look at the mapping, then say --yes" in looked.stderr
    assert looked.stderr.count('"event": "purchase.completed"') == 3, "three events are shown"
    told = imported(data, str(file))
    assert (told["usable"], told["mapping"]["id"]) == (True, "order_id")
    assert command("import", str(file), "--preview", "--data", str(data)).returncode == 0
    assert command("import", str(file), "--write-mapping", "--data", str(data)).returncode == 0
    assert not data.exists(), "up to here nothing was stored"

    done = imported(data, str(file), "--yes")
    assert (done["events"], done["accepted"], done["duplicates"], done["refused"]) == (3, 3, 0, [])
    written = tmp_path / "sales.mapping.yaml"
    again = imported(data, str(file), "--mapping", str(written))
    assert (again["accepted"], again["duplicates"]) == (0, 3)
    (warning,) = done["warnings"]
    assert (warning["code"], warning["count"]) == ("missing_rate", 3)
    assert "TOUCHFOLD_CURRENCY=EUR" in warning["message"]

    written.write_text(written.read_text() + "# mine\n")
    kept = command("import", str(file), "--write-mapping", "--data", str(data))
    assert kept.returncode == 2
    assert "is there and different" in kept.stderr
    assert written.read_text().endswith("# mine\n")


KIOSK: Final = """
source: kiosk
type: session.started
identifiers: {user_id: customer, anonymous_id: device}
occurred_at: when
historical: true
"""


def test_who_came_first_is_met_first_whatever_the_order_of_the_lines(tmp_path: Path) -> None:
    data, mapping = tmp_path / "data", tmp_path / "kiosk.yaml"
    mapping.write_text(KIOSK)
    newest_first = [f"p{n},d{n % 2},2024-05-{20 - n:02},\n" for n in range(8)]  # p6 and p7 are the earliest
    (tmp_path / "may.csv").write_text("customer,device,when,\n" + "".join(newest_first[:4]))
    (tmp_path / "april.csv").write_text("customer,device,when,\n" + "".join(newest_first[4:]))
    files = [str(tmp_path / name) for name in ("may.csv", "april.csv")]
    assert imported(data, *files, "--mapping", str(mapping))["accepted"] == 8
    for device, owner in (("d0", "p6"), ("d1", "p7")):
        profile = result("profile", f"anonymous_id:{device}", "--data", str(data))
        assert {"kind": "user_id", "value": owner} in profile["identifiers"]
    (tmp_path / "older.csv").write_text("customer,device,when\np9,d0,2023-01-01\n")
    imported(data, str(tmp_path / "older.csv"), "--mapping", str(mapping))
    profile = result("profile", "anonymous_id:d0", "--data", str(data))
    assert {"kind": "user_id", "value": "p6"} in profile["identifiers"], (
        "a later import takes nothing from who is there"
    )


def test_nothing_imported_is_a_failure_that_says_why(tmp_path: Path) -> None:
    data, mapping, file = tmp_path / "data", tmp_path / "kiosk.yaml", tmp_path / "a.csv"
    mapping.write_text(KIOSK)
    file.write_text("customer,device,when\n")
    empty = command("import", str(file), "--mapping", str(mapping), "--data", str(data), "--json")
    assert (empty.returncode, json.loads(empty.stdout)["events"]) == (1, 0)
    assert "the file has no lines" in empty.stderr
    file.write_text("customer,device,when\np1,d1,soon\np2,d1,1970-01-01\np3,d1,later\n")
    refused = command("import", str(file), "--mapping", str(mapping), "--data", str(data), "--json")
    assert refused.returncode == 1
    assert "every line was refused" in refused.stderr
    reasons = json.loads(refused.stdout)["reasons"]
    assert [(each["rule"], each["count"], each["lines"]) for each in reasons] == [
        ("bad_time", 2, [2, 4]),
        ("impossible_time", 1, [3]),
    ]
