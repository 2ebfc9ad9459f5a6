"""The pictures of the README: `make pictures`, with `make demo` running.

python tools/pictures.py --data touchfold-data        into docs/pictures, WebP of at most 150 kB each
"""

import argparse
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
BIN = Path(sys.executable).parent / "touchfold"
ROOT = Path(__file__).parents[1]
MOST = 150_000  # bytes per picture
SIZE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 780}
ENCODE = """async ([png, quality]) => {
  const image = new Image();
  image.src = "data:image/png;base64," + png;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/webp", quality).split(",")[1];
}"""


def main() -> int:
    """Sign in, take each picture, and save it within the size limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("touchfold-data"), help="the data folder of a running demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    given = parser.parse_args()
    url = json.loads((given.data / "run.json").read_text())["url"]
    token = command(given.data, "token", "create", "--role", "admin")["token"]
    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, png in shots(browser, url, token):
            write(browser, given.out / f"{name}.webp", png)
        browser.close()
    return 0


def command(data: Path, *words: str) -> Any:
    """The JSON output of a command."""
    done = subprocess.run([str(BIN), *words, "--data", str(data), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def shots(browser: Browser, url: str, token: str) -> list[tuple[str, bytes]]:
    """The pictures as PNG, by name."""
    found = []
    page = signed_in(browser, url, token, SIZE, "light")
    page.wait_for_selector("canvas", timeout=60_000)
    found.append(("overview", shot(page)))
    page.goto(f"{url}/customers")
    page.get_by_label("Search customers").fill("maria")
    page.wait_for_selector("a.tf-row")
    found.append(("customers", shot(page)))
    customer = risky(page, url)
    page.goto(customer)
    found.append(("customer", shot(page)))
    page.goto(f"{url}/segments")
    found.append(("segments", shot(page)))
    page.context.close()
    page = signed_in(browser, url, token, SIZE, "dark")
    page.goto(f"{url}/live")
    found.append(("live-dark", shot(page)))
    page.context.close()
    page = signed_in(browser, url, token, PHONE, "light")
    page.goto(customer)
    found.append(("customer-phone", shot(page)))
    page.context.close()
    return found


def signed_in(browser: Browser, url: str, token: str, size: dict[str, int], scheme: Any) -> Page:
    """A picture of the overview."""
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto(f"{url}/sign-in")
    page.click("summary")
    page.fill("input[name=token]", token)
    page.click("button[type=submit]")
    page.wait_for_selector(".tf-main")
    return page


def risky(page: Page, url: str) -> str:
    """The address of somebody who bought often, complained and is at risk."""
    page.goto(f"{url}/segments/complaining")
    row = (
        page.locator("a.tf-row", has_text="High risk")
        .filter(has_text="Repeat")
        .or_(page.locator("a.tf-row", has_text="Medium risk").filter(has_text="Repeat"))
    )
    return f"{url}{row.first.get_attribute('href')}"


def shot(page: Page) -> bytes:
    """The visible part of the page, once it is quiet."""
    page.wait_for_selector(".tf-main")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(700)  # animations have finished
    return page.screenshot()


def write(browser: Browser, file: Path, png: bytes) -> None:
    """Convert to WebP with the best quality that is small enough."""
    page = browser.new_page()
    for quality in (0.92, 0.85, 0.75, 0.6):
        made = base64.b64decode(page.evaluate(ENCODE, [base64.b64encode(png).decode(), quality]))
        if len(made) <= MOST:
            break
    page.close()
    file.write_bytes(made)
    print(f"{file} {len(made):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
