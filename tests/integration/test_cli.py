"""The `touchfold` command: exit status, errors, and the operator's commands beside a running `up` and alone."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from infra.adapters.postgres.embedded import EmbeddedPostgres
from infra.cli.main import MODULES
from tests.integration.running import Up, command, environment, result, until


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("cli") / "data")
    running.wait_ready()
    yield running
    assert running.stop() == 0


def _at(up: Up) -> tuple[str, str]:
    return "--data", str(up.data)


def test_help_lists_every_command_and_shows_examples() -> None:
    shown = command("--help")
    assert shown.returncode == 0
    for name in MODULES:
        assert f"\n  {name} " in shown.stdout, name
    assert "touchfold source create web" in shown.stdout
    assert command("--version").stdout.startswith("touchfold ")


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"capacity"}))  # a calculation, without data
def test_the_help_of_a_command_names_the_data_folder(name: str) -> None:
    from typer.testing import CliRunner  # noqa: PLC0415  # in this process: twenty starts take ten seconds

    from infra.cli.main import build_app  # noqa: PLC0415

    groups = dict.fromkeys(("source", "token", "user", "segment", "dead-letters"), "list") | {
        "archive": "merge",
        "topics": "plan",
        "record": "show",
        "key": "rotate",
        "fields": "list",
    }
    arguments = [name, *([groups[name]] if name in groups else []), "--help"]
    shown = CliRunner().invoke(build_app(arguments), arguments)
    assert shown.exit_code == 0, shown.output
    assert "--data" in shown.output


@pytest.mark.parametrize(
    "arguments", [("nothing",), ("up", "--nothing"), ("source", "create"), ("up", "--port", "many"), ()]
)
def test_misuse_is_exit_status_2_on_stderr(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stderr + done.stdout


def test_an_error_is_one_line_on_stderr_and_with_json_the_one_error_form(up: Up) -> None:
    plain = command("source", "revoke", "nobody", *_at(up))
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr.startswith("touchfold: there is no source 'nobody'")
    as_json = command("source", "revoke", "nobody", *_at(up), "--json")
    assert (as_json.returncode, as_json.stdout) == (1, "")
    body = json.loads(as_json.stderr)
    assert (body["success"], body["code"]) == (False, "not_found")


@pytest.mark.parametrize("arguments", [("profile", "ada"), ("erase", "ada", "--yes"), ("refold", "ada")])
def test_a_selector_without_a_colon_is_misuse(up: Up, arguments: tuple[str, ...]) -> None:
    done = command(*arguments, *_at(up))
    assert (done.returncode, done.stdout) == (2, "")
    assert "write KIND:VALUE" in done.stderr
    assert json.loads(command(*arguments, *_at(up), "--json").stderr)["code"] == "bad_request"


def test_invalid_definitions_are_told_all_at_once_on_stdout_with_json(up: Up, tmp_path: Path) -> None:
    text = "segments:\n  a: {wen: {segment: b}}\n  b: {when: {trait: nope, op: gte, value: 1}}\n"
    (tmp_path / "bad.yaml").write_text(text)
    done = command("apply", str(tmp_path), *_at(up), "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    errors = told.pop("errors")
    assert told == {"added": [], "changed": [], "unchanged": []}
    assert {each["path"] for each in errors} == {"segments.a.wen", "segments.a.when", "segments.b.when.trait"}
    assert all(each.keys() == {"path", "reason"} for each in errors)
    plain = command("apply", str(tmp_path), *_at(up))
    assert (plain.returncode, plain.stdout) == (1, "")
    assert "segments.b.when.trait" in plain.stderr


def test_a_source_is_made_listed_rotated_and_revoked_and_its_curl_line_works(up: Up) -> None:
    made = result("source", "create", "web", *_at(up))
    assert made["name"] == "web"
    done = subprocess.run(["bash", "-c", made["curl"]], capture_output=True, text=True, check=False, timeout=60)
    assert json.loads(done.stdout)["success"] is True
    rotated = result("source", "rotate", "web", *_at(up))
    assert rotated["write_key"] != made["write_key"]
    until(lambda: up.send(made["write_key"], "track", {}).status == 401, "the end of the old key")
    (listed,) = [each for each in result("source", "list", *_at(up)) if each["name"] == "web"]
    assert listed["keys"] == 1
    assert result("source", "revoke", "web", *_at(up)) == {"name": "web", "revoked": 1}
    assert "web: 0 write keys" in command("source", "list", *_at(up)).stdout


def test_status_wait_returns_when_all_that_was_accepted_is_decided(up: Up) -> None:
    key = result("source", "create", "waiting", *_at(up))["write_key"]
    for number in range(20):
        event = {"userId": f"w-{number}", "event": "Product Viewed", "messageId": f"w-{number}"}
        assert up.send(key, "track", event).status == 200
    status = result("status", "--wait", *_at(up))
    assert status["ready"] is True
    assert (status["lag"], status["accepted"]) == (0, status["decided"])
    names = {"ready", "lag", "accepted", "applied", "decided", "dead_letters", "archived", "waiting"}
    assert set(status) == names | {"archive_files", "archive_merges_waiting", "archive_rewrites_waiting"}
    assert result("profile", "user_id:w-19", *_at(up))["event_count"] == 1


def test_a_dead_letter_is_listed_shown_and_sent_again(up: Up) -> None:
    key = result("source", "create", "faulty", *_at(up))["write_key"]
    bad = {"event": "Order Completed", "messageId": "bad-1", "properties": {"order_id": "x"}}  # no identifier
    assert up.send(key, "track", bad).status == 200
    (letter,) = [each for each in result("dead-letters", "list", *_at(up)) if each["source"] == "faulty"]
    assert set(letter) == {"id", "stage", "rule", "path", "reason", "source", "received_at", "event_id", "remedy"}
    assert result("status", *_at(up))["dead_letters"] >= 1
    shown = result("dead-letters", "show", letter["id"], *_at(up))
    assert shown["content"]["item"]["messageId"] == "bad-1"
    again = result("dead-letters", "retry", letter["id"], *_at(up))
    (told,) = again.pop("remedies")
    assert again == {"accepted": 0, "refused": [letter["id"]], "gone": 0}
    assert told == f"no_identifier (door): {letter['remedy']}"
    said = command("dead-letters", "retry", letter["id"], *_at(up)).stdout
    assert f"what to do about {told}" in said
    assert letter["id"] in [each["id"] for each in result("dead-letters", "list", *_at(up))]
    assert command("dead-letters", "retry", *_at(up)).returncode == 2
    assert command("dead-letters", "show", "nonsense", *_at(up)).returncode == 1


def test_an_event_under_an_id_that_is_taken_counts_under_one_of_its_own(up: Up) -> None:
    key = result("source", "create", "twice", *_at(up))["write_key"]
    item: dict[str, Any] = {"event": "Sold", "userId": "twice", "messageId": "m-1"}
    for number in (1, 2):
        assert up.send(key, "track", item | {"properties": {"quantity": number}}).status == 200
    result("status", "--wait", *_at(up))
    (letter,) = [each for each in result("dead-letters", "list", *_at(up)) if each["source"] == "twice"]
    assert (letter["stage"], letter["rule"]) == ("fold", "id_reused")
    assert "give it its own id" in letter["remedy"]
    assert f"what to do about id_reused (fold): {letter['remedy']}" in command("dead-letters", "list", *_at(up)).stdout
    refused = command("dead-letters", "retry", letter["id"], *_at(up))
    assert refused.returncode == 2
    assert letter["remedy"] in refused.stderr
    token = result("token", "create", "--role", "admin", *_at(up))["token"]
    asked = urllib.request.Request(
        f"{up.url}/api/v1/dead-letters/{letter['id']}/retry", b"", {"Authorization": f"Bearer {token}"}
    )
    with pytest.raises(urllib.error.HTTPError) as answered:
        urllib.request.urlopen(asked, timeout=30)
    with answered.value as err:
        assert err.code == 400
        assert letter["remedy"] in json.load(err)["message"]
    assert up.send(key, "track", item | {"messageId": "m-2", "properties": {"quantity": 2}}).status == 200
    result("status", "--wait", *_at(up))
    assert result("profile", "user_id:twice", *_at(up))["event_count"] == 2


def test_doctor_finds_nothing_wrong_beside_a_running_up(up: Up) -> None:
    findings = result("doctor", *_at(up))
    assert [each for each in findings if not each["ok"]] == []
    assert {"lock", "database", "migrations", "vault", "log", "progress", "archive", "disk", "clock", "python"} <= {
        each["check"] for each in findings
    }


def test_commands_wait_for_each_other_where_no_up_runs(tmp_path: Path) -> None:
    assert result("status", "--data", str(tmp_path))["ready"] is False
    at_once = [
        subprocess.Popen(
            [sys.executable, "-m", "infra.cli.main", "source", "create", name, "--data", str(tmp_path)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in at_once:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
    assert {each["name"] for each in result("source", "list", "--data", str(tmp_path))} == {"one", "two"}


def _damage(data: Path, statement: str) -> None:
    server = EmbeddedPostgres(data)
    server.start()
    with closing(psycopg2.connect(server.dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
    server.stop()


def _bad(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {each["check"]: each["fix"] for each in findings if not each["ok"]}


def test_doctor_names_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    assert command("doctor", "--data", str(tmp_path / "none")).returncode == 1
    assert result("status", "--data", str(tmp_path))["accepted"] == 0
    _damage(tmp_path, "update log_head set next_offset = 3 where partition = 1")
    _damage(tmp_path, "update progress set next_offset = 9 where partition = 2")
    manifest = tmp_path / "archive" / "manifest.jsonl"
    manifest.write_text("not a line of ours\n{}\n")
    manifest.chmod(0o600)
    done = command("doctor", "--data", str(tmp_path), "--json")
    assert done.returncode == 1
    found = _bad(json.loads(done.stdout))
    assert set(found) == {"log", "progress", "archive", "merging"}
    assert all(found.values())


def test_every_dead_letter_is_listed_unless_a_limit_is_given(tmp_path: Path) -> None:
    assert result("dead-letters", "list", "--data", str(tmp_path)) == []
    _damage(
        tmp_path,
        "insert into dead_letters (id, stage, rule, path, reason, source, received_at, tokens, seal_key, sealed)"
        " select gen_random_uuid(), 'door', 'r', '', 'r', 's', now(), '{}', gen_random_uuid(), ''"
        " from generate_series(1, 1001)",
    )
    assert len(result("dead-letters", "list", "--data", str(tmp_path))) == 1001
    assert len(result("dead-letters", "list", "--limit", "7", "--data", str(tmp_path))) == 7


def test_ctrl_c_ends_a_command_at_once_with_130_and_without_a_trace(tmp_path: Path) -> None:
    holder = EmbeddedPostgres(tmp_path)
    holder.lock()
    # a suite that a shell runs in the background is started with SIGINT ignored, and hands that on
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "infra.cli.main", "status", "--data", str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "waiting" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    holder.stop()
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err
