"""What browsers and images ask of the door, over real sockets: settings, pixels, the script, and who may not."""

import gzip
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.drivers.http.browser_files import FOLDER
from tests.conftest import Databases
from tests.integration.test_door import Running, basic


@pytest.fixture
def running(databases: Databases) -> Iterator[Running]:
    door = Running(databases)
    yield door
    door.close()


def test_settings_come_by_each_of_their_addresses(running: Running) -> None:
    key = running.source("web")
    for path in (f"/v1/projects/{key}/settings", f"/projects/{key}/settings", f"/v1/projects/projects/{key}/settings"):
        answer = running.send("GET", path, headers={"Origin": "https://shop.example", "Host": "cdp.shop.example"})
        assert answer.status == 200
        segment = answer.json()["integrations"]["Segment.io"]
        assert segment["apiHost"] == "cdp.shop.example/v1"
        assert segment["protocol"] == "https"
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    for path in ("/sourceConfig", "/sourceConfig/?p=web&v=3", f"/sourceConfig/?writeKey={key}"):
        answer = running.send("GET", path, headers={"Authorization": basic(key)})
        assert (answer.status, answer.json()["source"]["enabled"]) == (200, True)
    assert running.send("HEAD", f"/projects/{key}/settings").body == b""
    assert running.records("web") == []


def test_who_has_no_key_is_told_in_words_a_browser_may_read(running: Running) -> None:
    for path, status in (("/v1/projects/wk_no/settings", 404), ("/sourceConfig?writeKey=wk_no", 400)):
        answer = running.send("GET", path, headers={"Origin": "https://shop.example"})
        assert (answer.status, answer.json()["code"]) == (status, "invalid_write_key")
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert running.send("GET", "/v1/track").status == 404
    assert running.send("DELETE", "/sourceConfig").status == 404


def test_a_pixel_is_an_event_and_an_image(running: Running) -> None:
    key = running.source("mail")
    said = {
        "writeKey": key,
        "userId": "u-9",
        "event": "Email Opened",
        "messageId": "m-9",
        "properties": {"email_id": 7},
    }
    data = urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    for _ in range(2):  # opened twice, counted once
        answer = running.send("GET", f"/v1/pixel/track?data={data}")
        assert (answer.status, answer.headers["content-type"], answer.body[:6]) == (200, "image/gif", b"GIF89a")
        assert answer.headers["cache-control"] == "no-store"
    flat = f"/pixel/v1/page?writeKey={key}&anonymousId=a-1&name=Terms&properties.path=/terms"
    assert running.send("GET", flat).status == 200
    records = running.records("mail")
    assert [(record.type, record.message_id) for record in records if record.type != "web.page_viewed"] == [
        ("email.opened", "m-9")
    ] * 2
    assert len({record.id for record in records}) == 2
    (viewed,) = [record for record in records if record.type == "web.page_viewed"]
    assert viewed.name == "Terms"


def test_a_pixel_that_is_refused_is_an_image_that_says_so_and_no_event(running: Running) -> None:
    key = running.source("mail")
    for path, code in (
        ("/v1/pixel/track?writeKey=wk_no&userId=u&event=x", "invalid_write_key"),
        (f"/v1/pixel/track?writeKey={key}&data=***", "bad_request"),
        (f"/v1/pixel/open?writeKey={key}&userId=u", "not_found"),
    ):
        answer = running.send("GET", path)
        assert (answer.status, answer.headers["content-type"]) == (200, "image/gif")
        assert answer.headers["touchfold-refused"] == code
    assert running.send("HEAD", f"/v1/pixel/track?writeKey={key}&userId=u&event=x").status == 200
    assert running.records("mail") == []
    assert running.door.counters.refused == 3


def test_a_pixel_counts_in_its_sources_rate(running: Running) -> None:
    key = running.source("mail", {"events_per_s": 0.001, "burst": 2})
    answers = [running.send("GET", f"/pixel/v1/track?writeKey={key}&userId=u&event=x") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert (answers[2].headers["content-type"], answers[2].headers["touchfold-refused"]) == (
        "image/gif",
        "too_many_requests",
    )
    assert len(running.records("mail")) == 2


def test_a_bad_item_of_a_pixel_is_a_dead_letter(running: Running) -> None:
    key = running.source("mail")
    assert running.send("GET", f"/pixel/v1/track?writeKey={key}&userId=u").status == 200  # no event's name
    assert [letter.rule for letter in running.dead("mail")] == ["missing_field"]


def test_the_keys_of_items_name_the_source(running: Running) -> None:
    key, other = running.source("web"), running.source("other")
    item = {"type": "track", "userId": "u", "event": "x"}
    batch = [{**item, "writeKey": key, "messageId": "1"}, {**item, "writeKey": other, "messageId": "2"}]
    assert running.post("/rudder/v1/batch", {"batch": batch}).status == 200
    assert [record.message_id for record in running.records("web")] == ["1"]
    assert [letter.rule for letter in running.dead("web")] == ["other_write_key"]
    assert running.records("other") == []


def test_jitsus_addresses_and_keys(running: Running) -> None:
    key = running.source("web")
    for place, body in (
        ("track", {"type": "track", "userId": "u", "event": "x", "messageId": "1"}),
        ("s2s/page", {"anonymousId": "a", "name": "Home", "messageId": "2"}),
        ("event", {"type": "identify", "userId": "u", "traits": {"plan": "pro"}, "messageId": "3"}),
    ):
        answer = running.post(f"/api/s/{place}", body, X_Write_Key=f"web:{key}")
        assert (answer.status, answer.json()["success"]) == (200, True)
    assert {record.message_id: record.type for record in running.records("web")} == {
        "1": "custom",
        "2": "web.page_viewed",
        "3": "profile.identified",
    }


def test_the_script_is_served_packed_and_once(running: Running) -> None:
    if not (FOLDER / "analytics.min.js").is_file():
        answer = running.send("GET", "/analytics.js/v1/wk_any/analytics.min.js")
        assert (answer.status, "analytics-js" in answer.json()["message"]) == (404, True)
        return
    answer = running.send("GET", "/analytics.js/v1/wk_any/analytics.min.js", headers={"Accept-Encoding": "gzip, br"})
    assert (answer.status, answer.headers["content-encoding"]) == (200, "gzip")
    plain = gzip.decompress(answer.body)
    assert (FOLDER / "analytics.min.js").read_bytes() in plain
    tag = answer.headers["etag"]
    again = running.send("GET", "/analytics.js/v1/wk_any/analytics.min.js", headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    part = next(Path(FOLDER).glob("queryString.bundle.*.js"))
    assert running.send("GET", f"/analytics-next/bundles/{part.name}").body == part.read_bytes()


def test_the_version_and_preflights(running: Running) -> None:
    assert running.send("GET", "/version").json()["name"] == "touchfold"
    for path in ("/v1/pixel/track", "/sourceConfig/", "/api/s/track", "/rudder/v1/batch", "/projects/x/settings"):
        asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        answer = running.send("OPTIONS", path, headers=asked)
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, "https://shop.example")
