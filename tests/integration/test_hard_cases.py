"""Hard cases found by using the product as strangers and attackers would: each is a fault that was there once."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.clear import split
from schemas.clear_rules import NOTHING_DECLARED, Declared, clear_rules
from tests.conftest import Databases
from tests.integration.test_door import Running
from tests.integration.test_erasure import ADA, World

SHOP = "purchase.completed"


def parted(properties: dict[str, Any], context: dict[str, Any], declared: Declared = NOTHING_DECLARED) -> str:
    """What is clear of an event, as JSON text."""
    parts = split(properties, context, {}, clear_rules(declared, SHOP, "Order Completed"), declared.attributes)
    return json.dumps([parts.properties, parts.context])


@pytest.mark.parametrize(
    ("properties", "context"),
    [
        ({"shipping": {"name": "Ada Secret", "address": "12 Secret Street"}}, {}),
        ({"discount": [{"code": "x", "customer": "Secret"}]}, {}),
        ({"category": [["Secret"]]}, {}),
        ({"order_id": "ada@secret.com"}, {}),
        ({"coupon": "for ada%40Secret.com"}, {}),
        ({"products": [{"product_id": "p", "name": "engraved for ada@secret.com"}]}, {}),
        ({}, {"page": {"path": "/unsubscribe/ada@secret.com"}}),
        ({}, {"campaign": {"name": "autumn", "to": {"who": "ada@secret.com"}}}),
    ],
)
def test_no_personal_value_stays_clear_under_a_name_that_is_clear(
    properties: dict[str, Any], context: dict[str, Any]
) -> None:
    assert "secret" not in parted(properties, context).lower()


def test_a_phone_number_as_an_order_id_is_sealed() -> None:
    assert "4155550199" not in parted({"order_id": "+14155550199"}, {})


def test_codes_lists_of_codes_retina_images_and_declared_objects_stay_clear() -> None:
    declared = Declared({"*": {"shipping": False}}, frozenset())
    properties = {
        "order_id": "O-1@7",
        "category": ["garden", "tools"],
        "shipping": {"method": "pickup"},
        "products": [{"image_url": "https://cdn/logo@2x.png"}],
    }
    clear = json.loads(parted(properties, {"page": {"path": "/a"}}, declared))
    assert clear == [properties, {"page": {"path": "/a"}}]


@pytest.fixture
def running(databases: Databases) -> Iterator[Running]:
    running = Running(databases)
    yield running
    running.close()


@pytest.mark.parametrize("type_", ["track", "page", "screen", "alias"])
def test_traits_of_a_call_that_keeps_none_do_not_fail_the_batch(running: Running, type_: str) -> None:
    key = running.source("web")
    odd = {"type": type_, "event": "x", "userId": "u", "previousId": "p", "traits": {"email": "ada@secret.com"}}
    answer = running.post("/v1/batch", {"batch": [odd, {"type": "track", "event": "x", "userId": "v"}]}, key)
    assert answer.status == 200
    records = running.records("web")
    assert len(records) == 2
    assert "email" in {each.kind for record in records for each in record.ids}


def test_who_keeps_sending_during_an_erasure_is_a_new_customer_after_it(databases: Databases, tmp_path: Path) -> None:
    """The door read the vault rows again between the new epoch and their destruction, and kept them for ever."""
    world = World(databases, tmp_path / "ledger")
    done = threading.Event()

    def keep_sending() -> None:
        while not done.is_set():
            world.vault.tokens(ADA)

    sender = threading.Thread(target=keep_sending)
    try:
        world.send(ADA)
        world.settle()
        before = world.vault.tokens(ADA)
        sender.start()
        world.eraser.erase(*ADA[0])
        done.set()
        sender.join()
        assert not set(world.vault.tokens(ADA)) & set(before)
        world.send(ADA)
        world.settle()
        assert world.orders_of(ADA[0]) == 1
    finally:
        done.set()
        world.close()
