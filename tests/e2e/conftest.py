"""A running touchfold with customers, friendly and hostile, and a real Chromium that asks nobody else."""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright

BIN: Final = Path(sys.executable).parent / "touchfold"
CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SCREENS: Final = Path(os.environ.get("TOUCHFOLD_SCREENS", Path(__file__).parents[2] / "build" / "screens"))
TIMEOUT_MS: Final = int(os.environ.get("BROWSER_TIMEOUT_MS", "20000"))
ENVIRONMENT: Final = {key: value for key, value in os.environ.items() if not key.startswith("TOUCHFOLD_")}
ROLES: Final = ("admin", "marketer", "analyst", "staff", "privacy")
HOSTILE: Final = {
    "script": "<script>window.__xss=1</script>",
    "attribute": '"><img src=x onerror="window.__xss=1">',
    "template": "{{7*7}} {{constructor.constructor('window.__xss=1')()}} ${7*7}",
    "markup": "**bold** [link](javascript:window.__xss=1) <b>bold</b> </textarea></script>",
    "rtl": "\u202eevil\u202c \u0645\u0631\u062d\u0628\u0627",
    "long": "Maximilian" * 800,  # the door takes 8,192 letters at most
    "emoji": "Zoë 🦊\u200d",
    "lines": "first line\nsecond line\ttab",
    "formula": '=HYPERLINK("http://127.0.0.1/x","x")',
}
DEFINITIONS: Final = """segments:
  hostile_words:
    description: '"><img src=x onerror="window.__xss=1"> {{7*7}} <script>window.__xss=1</script>'
    when: {trait: open_complaints, op: gte, value: 1}
"""


@dataclass
class Shop:
    """A `touchfold up` of the suite: where it is, its write key, and a token of each role."""

    url: str
    data: Path
    key: str
    tokens: dict[str, str]
    welcome: str  # the first admin's link
    errors: Path
    ids: dict[str, str] = field(default_factory=dict)

    def touchfold(self, *arguments: str) -> Any:
        """A command's JSON."""
        done = subprocess.run(
            [str(BIN), *arguments, "--data", str(self.data), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=ENVIRONMENT,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def send(self, *items: dict[str, Any]) -> None:
        """Events by the door."""
        body = json.dumps({"batch": list(items)}).encode()
        word = base64.b64encode(f"{self.key}:".encode()).decode()
        request = urllib.request.Request(f"{self.url}/v1/batch", body, {"Authorization": f"Basic {word}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    def ask(self, path: str, body: dict[str, str] | None = None) -> Any:
        """The API, as an admin; a POST where there is a body."""
        headers = {"Authorization": f"Bearer {self.tokens['admin']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v1{path}", data, headers)) as answer:
            return json.load(answer)

    def id_of(self, user: str) -> str:
        if user not in self.ids:
            self.ids[user] = self.ask(f"/profiles/user_id/{user}")["id"]
        return self.ids[user]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Started once; 40 customers with two months of orders, and one hostile customer of each kind."""
    folder = tmp_path_factory.mktemp("shop")
    errors = folder / "up.err"
    data = folder / "data"
    with errors.open("w") as said:
        command = [str(BIN), "up", "--data", str(data), "--port", "0"]
        up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=ENVIRONMENT)
    assert up.stdout is not None
    url = up.stdout.readline().strip().removeprefix("ready ")
    if not url:
        pytest.fail(errors.read_text())
    link = next(line.split()[-1] for line in errors.read_text().splitlines() if "sign in as admin" in line)
    made = Shop(url, data, "", {}, f"{url}/welcome/{link.rsplit('/', 1)[1]}", errors)
    try:
        (folder / "mine.yaml").write_text(DEFINITIONS)
        made.touchfold("apply", str(folder / "mine.yaml"))
        made.tokens["admin"] = made.touchfold("token", "create", "--role", "admin")["token"]
        made.key = made.ask("/sources", {"name": "web"})["write_key"]
        made.ask("/sources", {"name": HOSTILE["attribute"]})
        for role in ROLES[1:]:
            made.tokens[role] = made.ask("/tokens", {"role": role})["token"]
        made.send(*friendly(), *hostile(), *refused())
        made.touchfold("status", "--wait")
        yield made
    finally:
        up.terminate()
        up.wait(30)
        up.stdout.close()


def friendly() -> list[dict[str, Any]]:
    """Customers with names, orders and visits."""
    now = datetime.now(UTC)
    items: list[dict[str, Any]] = []
    for number in range(40):
        user = f"u{number}"
        first, last = (
            ("Ada", "Grace", "Joan", "Alan")[number % 4],
            ("Lovelace", "Hopper", "Clarke", "Turing")[number // 10],
        )
        traits = {"first_name": f"{first}{number}", "last_name": last, "email": f"{first}{number}@example.com".lower(),
                  "phone": f"+1415555{2000 + number}"}  # fmt: skip
        items.append({"type": "identify", "userId": user, "traits": traits, "messageId": f"i{number}"})
        for order in range(number % 5):
            at = (now - timedelta(days=1 + order * 13 + number % 7)).isoformat()
            properties = {"order_id": f"o{number}-{order}", "revenue": 20 + number, "currency": "USD",
                          "products": [{"product_id": "p1", "quantity": 2, "price": 10 + number / 2}]}  # fmt: skip
            items.append({"type": "track", "event": "Order Completed", "userId": user, "timestamp": at,
                          "properties": properties, "messageId": f"o{number}-{order}"})  # fmt: skip
    return items


def hostile() -> list[dict[str, Any]]:
    """Customers whose every text is an attack or a nuisance."""
    items: list[dict[str, Any]] = []
    for name, text in HOSTILE.items():
        user = f"h-{name}"
        items.append({"type": "identify", "userId": user, "messageId": f"h-i-{name}",
                      "traits": {"first_name": text, "last_name": "Hostile", "note": text, text[:60]: text[:200]},
                      "context": {"userAgent": text[:500], "page": {"path": text[:200]}}})  # fmt: skip
        items.append({"type": "track", "event": text[:200], "userId": user, "messageId": f"h-t-{name}",
                      "properties": {"text": text, "product_id": text[:100], text[:60]: text[:100]}})  # fmt: skip
        items.append({"type": "track", "event": "Product Viewed", "userId": user, "messageId": f"h-p-{name}",
                      "properties": {"name": text[:300], "sku": text[:100]}})  # fmt: skip
        items.append({"type": "track", "event": "Complaint Opened", "userId": user, "messageId": f"h-c-{name}",
                      "properties": {"complaint_id": f"c-{name}", "topic": text[:300], "text": text}})  # fmt: skip
    return items


def refused() -> list[dict[str, Any]]:
    """Items that become dead letters: a name of 10,000 letters, and values whose path is an attack."""
    return [
        {"type": "identify", "userId": "h-refused", "traits": {"first_name": "x" * 40_000}, "messageId": "h-long"},
        {"type": "track", "event": "x", "userId": "h-refused", "messageId": "h-path",
         "properties": {HOSTILE["attribute"]: "x" * 40_000}},
        {"type": HOSTILE["script"], "userId": "h-refused", "messageId": "h-type"},
    ]  # fmt: skip


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium, or set CHROMIUM")
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
    yield browser
    browser.close()


@dataclass
class Visit:
    """A browser of its own; what it complained of fails the test at the end."""

    shop: Shop
    context: BrowserContext
    page: Page
    complaints: list[str]

    def sign_in(self, role: str) -> Page:
        self.context.add_cookies([{"name": "touchfold_session", "value": self._session(role), "url": self.shop.url}])
        return self.page

    def _session(self, role: str) -> str:
        body = f"token={self.shop.tokens[role]}".encode()
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(urllib.request.Request(f"{self.shop.url}/sign-in", body, {})) as answer:
            return str(answer.headers["set-cookie"]).split("=", 1)[1].split(";")[0]

    def open(self, path: str) -> Page:
        """A page, when nothing loads any more and its socket answers."""
        self.page.goto(f"{self.shop.url}{path}")
        self.page.wait_for_selector(".tf-main")
        self.page.wait_for_load_state("networkidle")
        return self.page

    def fits(self, width: int) -> None:
        """The page at a width; it may take a moment until its charts are drawn again."""
        self.page.set_viewport_size({"width": width, "height": 900})
        gone = "document.querySelector('.q-drawer').getBoundingClientRect().right <= 0"  # the navigation
        self.page.wait_for_function(
            f"innerWidth == {width} && document.documentElement.scrollWidth <= {width} && ({width} > 900 || {gone})"
        )

    def whole(self, path: str) -> str:
        """What the server sends of a page, without a browser's work."""
        answer = self.context.request.get(f"{self.shop.url}{path}")
        assert answer.ok
        return answer.text()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def http_error_303(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        return fp


@pytest.fixture
def visit(browser: Browser, shop: Shop) -> Iterator[Visit]:
    """Signed in as nobody yet, 1280 wide. Console errors, page errors and requests elsewhere are complaints."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script("window.__xss = 0")
    complaints: list[str] = []
    context.route(lambda url: _elsewhere(url, shop.url), lambda route: route.abort())  # nothing leaves the machine
    page = context.new_page()
    page.on("websocket", lambda socket: complaints.append(f"asked {socket.url[:200]}")
            if not socket.url.startswith(shop.url.replace("http", "ws", 1)) else None)  # fmt: skip
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
    page.on(
        "request", lambda sent: complaints.append(f"asked {sent.url[:200]}") if _elsewhere(sent.url, shop.url) else None
    )
    yield Visit(shop, context, page, complaints)
    context.close()
    assert complaints == []


def _elsewhere(url: str, ours: str) -> bool:
    return not url.startswith((ours, "data:", "blob:", "about:"))


@pytest.fixture(scope="session")
def screens() -> Path:
    """Where the run leaves its pictures."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    return SCREENS
