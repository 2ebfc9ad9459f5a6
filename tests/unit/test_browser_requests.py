"""What SDKs ask for before they send, the paths they post to, and pixels: pure, without a door."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.drivers.http.browser_edge import is_of_door
from infra.drivers.http.browser_files import BrowserFiles
from infra.drivers.http.our_address import our_address
from ingest.accept.canonical import Unreadable
from ingest.requests.bodies import call_of, is_import
from ingest.requests.browser import CONFIG, GIF, PIXEL, SCRIPT, SETTINGS, VERSION, Page, as_gif, open_page, page_of
from ingest.requests.browser import pixel_request as pixel
from ingest.requests.routes import HttpRequest, Job, Reply, error_reply, open_request
from schemas.clear_rules import NOTHING_DECLARED, Declared
from schemas.errors import BadRequest, InvalidWriteKey, NotFound, SourceOff, StoreUnavailable
from schemas.sources import Source

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Known:
    """Two sources, one of them switched off, and what was looked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find(self, write_key: str) -> Source | None:
        self.asked.append(write_key)
        return {"wk_web": Source("web"), "wk_off": Source("off", enabled=False)}.get(write_key)

    def declared(self) -> Declared:
        return NOTHING_DECLARED


def get(path: str, query: str = "", base: str = "https://cdp.example", **headers: str) -> HttpRequest:
    return HttpRequest(
        "GET", path, query, {name.replace("_", "-"): value for name, value in headers.items()}, b"", base
    )


def page(path: str) -> Page:
    found = page_of(path)
    assert found is not None
    return found


def post(path: str, body: object, query: str = "", **headers: str) -> Job:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    opened = open_request(HttpRequest("POST", path, query, sent, json.dumps(body).encode()), Known(), NOW)
    assert isinstance(opened, Job)
    return opened


# --- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/v1/track", "track"),
        ("/v1/t", "track"),
        ("/t", "track"),  # analytics-next with an apiHost without /v1
        ("/identify", "identify"),
        ("//v1/batch", "batch"),  # a host that ends in /
        ("/v1/v1/p", "page"),  # a host that ends in /v1, and a library that adds its own
        ("/rudder/v1/screen", "screen"),
        ("/rudder/v1/batch", "batch"),
        ("/any/thing/batch", "batch"),
        ("/v1/batch/", "batch"),
        ("/api/s/track", "track"),
        ("/api/s/s2s/identify", "identify"),
        ("/api/s/event", "event"),
        ("/api/s/batch", "batch"),
        ("/beacon/v1/batch", "batch"),
        ("/collect/beacon/v1/batch", "batch"),
        ("/v1/m", "metrics"),
        ("/v1/nothing", None),
        ("/batches", None),
        ("/v1", None),
        ("/", None),
        ("/" + "a" * 600 + "/batch", None),
    ],
)
def test_a_path_means_a_call(path: str, call: str | None) -> None:
    assert call_of(path) == call


def test_a_path_of_import_is_of_a_server_wherever_a_proxy_puts_it() -> None:
    assert is_import("/v1/import")
    assert is_import("/rudder/v1/import/")
    assert not is_import("/v1/track")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/projects/wk_web/settings", Page(SETTINGS, "wk_web", "")),
        ("/projects/wk_web/settings", Page(SETTINGS, "wk_web", "")),
        ("/v1/projects/projects/wk_web/settings", Page(SETTINGS, "wk_web", "")),
        ("/v1/v1/projects/wk_web/settings/", Page(SETTINGS, "wk_web", "")),
        ("/cdp/v1/projects/wk_web/settings", Page(SETTINGS, "wk_web", "/cdp")),
        ("/sourceConfig", Page(CONFIG, "", "")),
        ("/sourceConfig/", Page(CONFIG, "", "")),
        ("/cdp/sourceConfig/", Page(CONFIG, "", "/cdp")),
        ("/v1/pixel/track", Page(PIXEL, "track", "")),
        ("/pixel/v1/page", Page(PIXEL, "page", "")),
        ("/pixel/v1/track.gif", Page(PIXEL, "track", "")),
        ("/analytics.js/v1/wk_web/analytics.min.js", Page(SCRIPT, "analytics.min.js", "")),
        ("/analytics.js/v1/wk_web/platform/analytics.min.js", Page(SCRIPT, "analytics.min.js", "")),
        ("/analytics-next/bundles/a.bundle.1f.js", Page(SCRIPT, "a.bundle.1f.js", "")),
        ("/p.js", Page(SCRIPT, "p.js", "")),
        ("/api/s/lib.js", Page(SCRIPT, "lib.js", "")),
        ("/version", Page(VERSION, "", "")),
        ("/v1/projects//settings", None),
        ("/projects/settings", None),
        ("/analytics.js/v1/wk_web/../../secret.js", None),
        ("/analytics-next/bundles/../x.js", None),
        ("/v1/track", None),
        ("/" + "v1/" * 400 + "settings", None),
    ],
)
def test_a_get_asks_for_something(path: str, found: Page | None) -> None:
    assert page_of(path) == found


@pytest.mark.parametrize(
    ("method", "path", "ours"),
    [
        ("POST", "/rudder/v1/track", True),
        ("OPTIONS", "/rudder/v1/track", True),
        ("OPTIONS", "/sourceConfig/", True),
        ("POST", "/api/s/track", True),
        ("POST", "/api/v1/sources/batch", False),
        ("GET", "/batch", False),
        ("GET", "/version", True),
        ("GET", "/pixel/anything", True),
        ("GET", "/customers", False),
        ("POST", "/sign-in", False),
        ("POST", "/_nicegui/client.js", False),
    ],
)
def test_the_door_takes_what_sdks_ask_and_leaves_the_rest_to_pages_and_api(method: str, path: str, ours: bool) -> None:
    assert is_of_door(method, path) is ours


# --- settings ---------------------------------------------------------------------------------------------------------


def test_segments_settings_name_our_address_and_the_key() -> None:
    path = "/v1/projects/wk_web/settings"
    reply = open_page(get(path, origin="https://shop.example"), page(path), Known())
    said = json.loads(reply.body)
    segment = said["integrations"]["Segment.io"]
    assert (segment["apiKey"], segment["apiHost"], segment["protocol"]) == ("wk_web", "cdp.example/v1", "https")
    assert said["metrics"] == {"sampleRate": 0}
    assert said["plan"]["track"]["__default"]["enabled"] is True
    headers = dict(reply.headers)
    assert headers[b"access-control-allow-origin"] == b"https://shop.example"
    assert headers[b"cache-control"] == b"private, max-age=60"
    assert [value for name, value in reply.headers if name == b"vary"] == [b"Origin"]


def test_below_a_proxys_path_events_go_there_too() -> None:
    path = "/cdp/v1/projects/wk_web/settings"
    reply = open_page(get(path, base="http://shop.example:8080"), page(path), Known())
    segment = json.loads(reply.body)["integrations"]["Segment.io"]
    assert (segment["apiHost"], segment["protocol"]) == ("shop.example:8080/cdp/v1", "http")


def test_an_unknown_key_has_the_status_at_which_each_sdk_stops() -> None:
    segment = open_page(get("/projects/wk_x/settings"), page("/projects/wk_x/settings"), Known())
    rudder = open_page(get("/sourceConfig", "writeKey=wk_x"), page("/sourceConfig"), Known())
    assert (segment.status, rudder.status) == (404, 400)
    for reply in (segment, rudder):
        assert json.loads(reply.body)["code"] == "invalid_write_key"
        assert dict(reply.headers)[b"cache-control"] == b"no-store"


def test_rudders_config_says_whether_the_source_is_on() -> None:
    basic = "Basic " + b64encode(b"wk_web:").decode()
    on = json.loads(open_page(get("/sourceConfig", authorization=basic), page("/sourceConfig"), Known()).body)
    off = json.loads(open_page(get("/sourceConfig", "p=web&writeKey=wk_off"), page("/sourceConfig"), Known()).body)
    assert (on["source"]["enabled"], off["source"]["enabled"]) == (True, False)
    assert on["source"]["writeKey"] == "wk_web"
    assert (on["source"]["destinations"], bool(on["source"]["id"])) == ([], True)
    assert on["source"]["config"]["statsCollection"]["errors"]["enabled"] is False


def test_a_source_that_is_off_has_no_settings() -> None:
    with pytest.raises(SourceOff, match="--enable"):
        open_page(get("/projects/wk_off/settings"), page("/projects/wk_off/settings"), Known())


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["wk_web", "shop:wk_web", "wk_web:anything", "wk_web:wk_web"])
def test_a_key_may_have_jitsus_two_parts_in_each_place(key: str) -> None:
    item = {"type": "track", "userId": "u", "event": "x"}
    basic = "Basic " + b64encode(f"{key}:".encode()).decode()
    assert post("/v1/track", item, authorization=basic).source.name == "web"
    assert post("/api/s/track", item, x_write_key=key).source.name == "web"
    assert post("/v1/track", {**item, "writeKey": key}).source.name == "web"
    assert post("/v1/batch", {"batch": [{**item, "writeKey": key}]}).source.name == "web"
    assert post("/beacon/v1/batch", {"batch": [item]}, query=f"writeKey={key}").source.name == "web"


def test_a_masked_key_in_the_body_is_none() -> None:
    item = {"type": "track", "userId": "u", "event": "x", "writeKey": "shop:***"}
    assert post("/api/s/track", item, x_write_key="shop:wk_web").source.name == "web"
    assert post("/v1/batch", {"batch": [item]}, x_write_key="shop:wk_web").source.name == "web"


def test_of_two_parts_the_one_that_looks_like_a_key_is_looked_up_first() -> None:
    known = Known()
    request = HttpRequest("POST", "/v1/track", "", {"x-write-key": "shop:wk_web"}, b'{"userId": "u", "event": "x"}')
    open_request(request, known, NOW)
    assert known.asked == ["wk_web"]


def test_neither_part_is_a_key() -> None:
    with pytest.raises(InvalidWriteKey):
        post("/v1/track", {"userId": "u", "event": "x"}, x_write_key="a:b")


def test_an_item_with_another_key_than_the_first_is_not_for_this_source() -> None:
    batch = [
        {"type": "track", "event": "a", "userId": "u"},
        {"type": "track", "event": "b", "userId": "u", "writeKey": "wk_web"},
        {"type": "track", "event": "c", "userId": "u", "writeKey": "wk_off"},
    ]
    items = post("/v1/batch", {"batch": batch}).call.items
    assert items[:2] == batch[:2]
    assert isinstance(items[2], Unreadable)
    assert (items[2].refused.rule, json.loads(items[2].raw)) == ("other_write_key", batch[2])


def test_a_key_beside_the_items_counts_before_theirs() -> None:
    job = post("/v1/batch", {"batch": [{"type": "track", "event": "a", "writeKey": "wk_off"}]}, x_write_key="wk_web")
    assert job.source.name == "web"


def test_jitsus_event_names_its_own_type() -> None:
    job = post("/api/s/event", {"type": "page", "anonymousId": "a"}, x_write_key="wk_web")
    assert job.call.items == [{"type": "page", "anonymousId": "a"}]


# --- pixels -----------------------------------------------------------------------------------------------------------


def item_of(path: str, query: str) -> Mapping[str, Any]:
    made = pixel(get(path, query), page(path))
    opened = open_request(made, Known(), NOW)
    assert isinstance(opened, Job)
    (item,) = opened.call.items
    assert isinstance(item, dict)
    return item


SAID = {"writeKey": "wk_web", "userId": "u-1", "event": "Email Opened", "properties": {"subject": "Öl? >~ 10 %"}}


@pytest.mark.parametrize(
    "data",
    [
        b64encode(json.dumps(SAID).encode()).decode().replace("+", "%2B"),
        b64encode(json.dumps(SAID).encode()).decode(),  # its + is read as a space
        urlsafe_b64encode(json.dumps(SAID).encode()).decode(),
        urlsafe_b64encode(json.dumps(SAID).encode()).decode().rstrip("="),
    ],
)
def test_segments_pixel_has_an_item_in_base64(data: str) -> None:
    assert item_of("/v1/pixel/track", f"data={data}") == {**SAID, "type": "track"}


def test_the_key_may_stand_beside_the_data_of_a_pixel() -> None:
    data = urlsafe_b64encode(b'{"anonymousId": "a"}').decode()
    assert item_of("/v1/pixel/page", f"data={data}&writeKey=wk_web") == {"anonymousId": "a", "type": "page"}


def test_a_pixels_fields_may_stand_in_the_query() -> None:
    query = (
        "writeKey=wk_web&userId=u&event=Email+Opened&properties.subject=a.b%26c&context.page.path=/x&properties.n.m=1"
    )
    assert item_of("/pixel/v1/track", query) == {
        "writeKey": "wk_web",
        "userId": "u",
        "event": "Email Opened",
        "properties": {"subject": "a.b&c", "n": {"m": "1"}},
        "context": {"page": {"path": "/x"}},
        "type": "track",
    }


def test_a_pixel_that_contradicts_itself_keeps_what_came_first() -> None:
    assert item_of("/pixel/v1/page", "writekey=wk_web&name=a&name.b=c&name=d") == {
        "writeKey": "wk_web",
        "name": "a",
        "type": "page",
    }


def test_a_pixel_of_a_thousand_dots_is_no_tower() -> None:
    item = item_of("/pixel/v1/page", "writeKey=wk_web&" + "a." * 1_000 + "b=1")
    deep, depth = item["a"], 1
    while isinstance(deep, dict):
        deep, depth = next(iter(deep.values())), depth + 1
    assert depth < 32


def test_what_a_pixel_cannot_mean_is_told() -> None:
    with pytest.raises(BadRequest, match="not base64"):
        pixel(get("/v1/pixel/track", "data=***"), page("/v1/pixel/track"))
    with pytest.raises(NotFound):
        pixel(get("/v1/pixel/open"), page("/v1/pixel/open"))


def test_a_pixel_is_an_image_whatever_happened() -> None:
    wrong = as_gif(error_reply(InvalidWriteKey("unknown"), None))
    assert (wrong.status, wrong.body[:6], len(wrong.body)) == (200, b"GIF89a", 43)
    assert dict(wrong.headers)[b"touchfold-refused"] == b"invalid_write_key"
    assert dict(wrong.headers)[b"content-type"] == b"image/gif"
    busy = as_gif(error_reply(StoreUnavailable("later", retry_after_s=3), None))
    assert (busy.status, dict(busy.headers)[b"retry-after"], busy.body) == (503, b"3", GIF)
    fine = as_gif(Reply(200, (), b"{}"))
    assert fine.status == 200
    assert b"touchfold-refused" not in dict(fine.headers)


# --- our address ------------------------------------------------------------------------------------------------------

OURS = {"scheme": "http", "server": ("10.0.0.1", 8700)}


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"host": "cdp.example"}, "http://cdp.example"),
        ({"host": "127.0.0.1:8700"}, "http://127.0.0.1:8700"),
        ({"host": "cdp.example", "x-forwarded-proto": "https, http"}, "https://cdp.example"),
        (
            {"host": "up:8700", "x-forwarded-host": "cdp.example, b", "x-forwarded-proto": "https"},
            "https://cdp.example",
        ),
        ({"host": "cdp.example", "origin": "https://shop.example"}, "https://cdp.example"),
        ({"host": "localhost:8700", "origin": "https://shop.example"}, "http://localhost:8700"),
        ({"host": "[::1]:8700"}, "http://[::1]:8700"),
        ({"host": 'x"><script>'}, "http://10.0.0.1:8700"),
        ({}, "http://10.0.0.1:8700"),
    ],
)
def test_our_address_is_the_one_the_sender_used(headers: dict[str, str], address: str) -> None:
    assert our_address(OURS, headers) == address


def test_our_own_tls_is_https() -> None:
    assert our_address({**OURS, "scheme": "https"}, {"host": "cdp.example"}) == "https://cdp.example"


# --- the script -------------------------------------------------------------------------------------------------------


def test_the_script_is_kept_for_a_day_and_its_parts_for_ever(tmp_path: Path) -> None:
    (tmp_path / "standalone.js").write_text("script()")
    (tmp_path / "x.bundle.1f.js").write_text("part()")
    files = BrowserFiles(tmp_path)
    whole, part = files.answer("analytics.min.js", {}), files.answer("x.bundle.1f.js", {})
    assert whole.body.endswith(b"script()")
    assert b"_cdn" in whole.body  # the script learns where it came from
    assert part.body == b"part()"
    assert dict(whole.headers)[b"cache-control"] == b"public, max-age=86400"
    assert b"immutable" in dict(part.headers)[b"cache-control"]
    tag = dict(whole.headers)[b"etag"].decode()
    again = files.answer("analytics.js", {"if-none-match": f'W/"other", {tag}'})
    assert (again.status, again.body) == (304, b"")


def test_without_a_script_the_answer_says_what_to_do(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(NotFound, match="TOUCHFOLD_ANALYTICS_JS"):
            BrowserFiles(place).answer("analytics.min.js", {})
        with pytest.raises(NotFound, match="make analytics-js"):
            BrowserFiles(place).answer("p.js", {})


def test_a_script_may_be_one_file_and_nothing_else_is_served(tmp_path: Path) -> None:
    (tmp_path / "mine.js").write_text("mine()")
    (tmp_path / "secret.js").write_text("secret")
    files = BrowserFiles(tmp_path / "mine.js")
    assert files.answer("analytics.min.js", {}).body.endswith(b"mine()")
    with pytest.raises(NotFound):
        files.answer("secret.js", {})
