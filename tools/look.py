"""Screenshots of the pages, for people who change them; reports errors of the console and the network.

python tools/look.py --page /customers --out /tmp/customers.png [--role staff] [--dark] [--phone]
python tools/look.py --url http://127.0.0.1:8700 --token tf_… --out /tmp/shots          every page, into a folder

Without --url, uses the `touchfold up` running on --data (default ./touchfold-data, as filled by `make demo`) or starts
one meanwhile, and creates a token of the role.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

PATHS = (
    "/",
    "/customers",
    "/segments",
    "/segments/repeat_customers",
    "/live",
    "/sources",
    "/system",
    "/team",
    "/audit",
)
CHROMIUM = "/usr/bin/chromium"
BIN = Path(sys.executable).parent / "touchfold"


def main() -> int:
    """Sign in with a token and write a picture of each page; returns 1 if a page reported errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a running touchfold")
    parser.add_argument("--token", help="token to sign in with at --url (created if --data is used)")
    parser.add_argument("--data", type=Path, default=Path("touchfold-data"))
    parser.add_argument("--role", default="admin")
    parser.add_argument("--out", type=Path, required=True, help="a folder, or FILE.png for one page")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--phone", action="store_true")
    parser.add_argument("--wait", type=float, default=1.0, help="seconds to wait once the page is quiet")
    parser.add_argument("--page", action="append", dest="pages", metavar="PATH", help="repeat for more")
    parser.add_argument("paths", nargs="*", metavar="PATH")
    given = parser.parse_args()
    paths = [*(given.pages or ()), *given.paths] or list(PATHS)
    if given.out.suffix == ".png" and len(paths) > 1:
        parser.error("--out names one file, but there are more pages: give a folder")
    with running(given.url, given.data) as url:
        token = given.token or command(given.data, "token", "create", "--role", given.role)["token"]
        return shoot(url, token, paths, given)


@contextmanager
def running(url: str | None, data: Path) -> Iterator[str]:
    """The address of a touchfold; if none is running on the folder, one is started and stopped afterwards."""
    note = data / "run.json"
    if url or note.exists():
        yield url or json.loads(note.read_text())["url"]
        return
    up = subprocess.Popen([str(BIN), "up", "--data", str(data), "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    try:
        yield up.stdout.readline().strip().removeprefix("ready ")
    finally:
        up.terminate()
        up.wait(30)


def command(data: Path, *words: str) -> Any:
    """The JSON output of a command."""
    done = subprocess.run([str(BIN), *words, "--data", str(data), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def shoot(url: str, token: str, paths: list[str], given: argparse.Namespace) -> int:
    """Take the pictures. Returns 1 if there were errors."""
    folder = given.out.parent if given.out.suffix == ".png" else given.out
    folder.mkdir(parents=True, exist_ok=True)
    size = {"width": 390, "height": 844} if given.phone else {"width": 1280, "height": 860}
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=size, color_scheme="dark" if given.dark else "light")
        sign_in(page, url, token)
        listen(page, url, said)
        for path in paths:
            page.goto(f"{url}{path}")
            page.wait_for_selector(".tf-main")
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(given.wait * 1_000)
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > size["width"]:
                said.append(f"{path} is {wide} wide")
            name = path.strip("/").replace("/", "-") or "overview"
            page.screenshot(path=given.out if given.out.suffix == ".png" else folder / f"{name}.png", full_page=True)
        browser.close()
    print("\n".join(said), end="\n" if said else "")
    return 1 if said else 0


def sign_in(page: Page, url: str, token: str) -> None:
    """Sign in through the form, as an admin with a token would."""
    page.goto(f"{url}/sign-in")
    page.click("summary")
    page.fill("input[name=token]", token)
    page.click("button[type=submit]")
    page.wait_for_selector(".tf-main")


def listen(page: Page, url: str, said: list[str]) -> None:
    """Collect the page's errors and its requests to other hosts."""
    page.on("console", lambda each: said.append(f"console: {each.text[:300]}") if each.type != "log" else None)
    page.on("pageerror", lambda err: said.append(f"error: {str(err)[:300]}"))
    page.on("response", lambda got: said.append(f"answer: {got.status} {got.url}") if got.status >= 400 else None)
    page.on("request", lambda sent: said.append(f"asked: {sent.url[:200]}") if _elsewhere(sent.url, url) else None)


def _elsewhere(asked: str, ours: str) -> bool:
    return not asked.startswith((ours, "data:", "blob:", "about:"))


if __name__ == "__main__":
    sys.exit(main())
