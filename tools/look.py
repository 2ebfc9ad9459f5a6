"""Screenshots of the pages of a running touchfold, for people who change them.

python tools/look.py --url http://127.0.0.1:8700 --token tf_… --out /tmp/shots [--dark] [--phone] [PATH …]
"""

import argparse
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PATHS = ("/", "/customers", "/segments", "/live", "/sources", "/system", "/team")
CHROMIUM = "/usr/bin/chromium"


def main() -> int:
    """Sign in by token and write a picture of each page; says what the console and the network complained of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8700")
    parser.add_argument("--token", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--phone", action="store_true")
    parser.add_argument("--wait", type=float, default=1.5, help="seconds after the page is there")
    parser.add_argument("paths", nargs="*", default=PATHS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    size = {"width": 390, "height": 844} if given.phone else {"width": 1280, "height": 860}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=size, color_scheme="dark" if given.dark else "light")  # type: ignore[arg-type]
        page.on("console", lambda said: print("console:", said.type, said.text[:300]) if said.type != "log" else None)
        page.on("pageerror", lambda err: print("error:", str(err)[:300]))
        page.on("response", lambda got: print("answer:", got.status, got.url) if got.status >= 400 else None)
        page.goto(f"{given.url}/sign-in")
        page.screenshot(path=given.out / "sign-in.png")
        page.click("summary")
        page.fill("input[name=token]", given.token)
        page.click("button[type=submit]")
        for path in given.paths:
            page.goto(f"{given.url}{path}")
            page.wait_for_selector(".tf-main")
            page.wait_for_timeout(given.wait * 1_000)
            name = path.strip("/").replace("/", "-") or "overview"
            page.screenshot(path=given.out / f"{name}.png", full_page=True)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
