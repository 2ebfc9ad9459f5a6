"""Search to customer among 100,000 customers, as a person at a till does it; prints how long it took."""

import os
import time
from typing import Any, Final

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Shop, Visit

CUSTOMERS: Final = int(os.environ.get("TOUCHFOLD_MANY", "100000"))
LOADED_S: Final = 1_800.0
FIRST: Final = ("Amira", "Bruno", "Chidi", "Dana", "Emre", "Freya", "Goran", "Hana", "Ines", "Jonas")
LAST: Final = ("Abadi", "Berger", "Castillo", "Dubois", "Eriksen", "Farouk", "Gruber", "Horvat", "Iversen", "Jansen")


@pytest.mark.long
@pytest.mark.timeout(2_400)
def test_a_customer_is_found_among_many(visit: Visit, shop: Shop) -> None:
    for start in range(0, CUSTOMERS, 200):
        shop.send(*(_customer(number) for number in range(start, min(start + 200, CUSTOMERS))))
    shop.touchfold("status", "--wait")
    _indexed(shop, f"many{CUSTOMERS - 1}@example.com")
    page = visit.sign_in("staff")
    for number in (CUSTOMERS // 7, CUSTOMERS // 2, CUSTOMERS - 1):
        visit.open("/customers")
        began = time.monotonic()
        page.keyboard.type(f"many{number}@example.com")
        expect(page.locator("a.tf-row")).to_have_count(1)
        page.keyboard.press("Enter")
        page.wait_for_url("**/customers/*", wait_until="commit")
        expect(page.locator(".tf-event").first).to_be_visible()
        print(f"search to customer among {CUSTOMERS:,}: {time.monotonic() - began:.2f} s")


def _customer(number: int) -> dict[str, Any]:
    traits = {"first_name": FIRST[number % 10], "last_name": LAST[number // 10 % 10]}
    return {"type": "identify", "userId": f"many-{number}", "messageId": f"many-{number}",
            "traits": {**traits, "email": f"many{number}@example.com"}}  # fmt: skip


def _indexed(shop: Shop, last: str) -> None:
    """Until the last one can be found."""
    deadline = time.monotonic() + LOADED_S
    while not shop.ask(f"/profiles?search={last}")["items"]:
        assert time.monotonic() < deadline, f"{last} cannot be found"
        time.sleep(0.5)
