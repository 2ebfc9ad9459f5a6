"""The traffic of a small shop, determined by a seed: customers, orders, retries, mistakes. Sends nothing."""

import json
from datetime import datetime, timedelta
from random import Random
from typing import Any

DAYS = 60  # how far back events go


class Traffic:
    """One sender's items. `prefix` keeps its message and order ids distinct; customers are shared between senders."""

    def __init__(self, prefix: str, *, seed: int, now: datetime, customers: int = 200) -> None:
        self._prefix = prefix
        self._random = Random(f"{prefix}/{seed}")
        self._now = now
        self._customers = customers
        self._made = 0
        self._orders = 0
        self._old: list[dict[str, Any]] = []
        self._open_orders: list[tuple[str, int]] = []

    def batch(self, size: int) -> list[dict[str, Any]]:
        """The next items: mostly new ones, some sent before (same or changed), some unusable."""
        return [self._item() for _ in range(size)]

    def _item(self) -> dict[str, Any]:
        dice = self._random.random()
        if self._old and dice < 0.04:
            return self._random.choice(self._old)  # a genuine repeat
        if self._old and dice < 0.045:
            changed: dict[str, Any] = json.loads(json.dumps(self._random.choice(self._old)))
            changed.setdefault("properties", {})["score"] = self._random.randrange(10**6)
            return changed  # same id, different content
        self._made += 1
        item = {"messageId": f"{self._prefix}-{self._made}", "timestamp": self._time()}
        if dice < 0.05:
            return item | {"type": "track", "userId": "u1"}  # no event name: a dead letter
        customer = int(self._customers * self._random.random() ** 2)  # some often, some once
        item |= self._content(customer, self._random.random())
        if len(self._old) < 2_000:
            self._old.append(item)
        return item

    def _content(self, customer: int, dice: float) -> dict[str, Any]:
        user, visitor = f"u{customer}", f"a{customer}-{self._random.randrange(3)}"
        if dice < 0.25:
            return {"type": "page", "anonymousId": visitor, "properties": {"score": self._random.randrange(1000)}}
        if dice < 0.35:
            address = f"u{customer}@example.com"
            if customer % 5 == 4:  # people whose address changes: more of them than a merge of two would be allowed
                address = f"u{customer}.{self._random.randrange(8)}@example.com"
            traits = {"email": address, "name": f"Name {customer}", "visits": dice}
            return {"type": "identify", "userId": user, "anonymousId": visitor, "traits": traits}
        if dice < 0.40:  # a shared tablet: seen with many customers, so it links nothing
            kiosk = f"kiosk-{self._random.randrange(2)}"
            return {"type": "track", "event": "Product Viewed", "userId": user, "anonymousId": kiosk}
        if dice < 0.45:
            return {"type": "track", "event": "call.received", "userId": user, "properties": {"seconds": 61.5}}
        if dice < 0.50 and self._open_orders:
            order, buyer = self._open_orders.pop(self._random.randrange(len(self._open_orders)))
            return self._after_sale(order, f"u{buyer}")
        return self._sale(customer, user, visitor)

    def _sale(self, customer: int, user: str, visitor: str) -> dict[str, Any]:
        if self._open_orders and self._random.random() < 0.1:  # the same order from a second place counts once
            order, customer = self._random.choice(self._open_orders)
            user, event = f"u{customer}", "pos.purchase"
            visitor = f"a{customer}-{visitor[-1]}"
        else:
            self._orders += 1
            order, event = f"o-{self._prefix}-{self._orders}", "Order Completed"
            self._open_orders.append((order, customer))
        price = self._random.randrange(1, 20_000) / 100
        products = [{"product_id": f"p{self._random.randrange(50)}", "price": price, "quantity": 2}]
        properties: dict[str, Any] = {"order_id": order, "currency": "USD", "products": products}
        properties["remark"] = f"for {user}"  # free text: sealed
        if self._random.random() < 0.7:
            properties["revenue"] = self._random.randrange(1, 50_000) / 100
        item: dict[str, Any] = {"type": "track", "event": event, "userId": user, "properties": properties}
        return item | ({"anonymousId": visitor} if self._random.random() < 0.3 else {})

    def _after_sale(self, order: str, user: str) -> dict[str, Any]:
        if self._random.random() < 0.5:
            return {"type": "track", "event": "Order Cancelled", "userId": user, "properties": {"order_id": order}}
        amount = self._random.randrange(1, 5_000) / 100
        properties = {"order_id": order, "revenue": amount, "currency": "USD"}
        return {"type": "track", "event": "Order Refunded", "userId": user, "properties": properties}

    def _time(self) -> str:
        at = self._now - timedelta(seconds=self._random.randrange(60, DAYS * 86_400))
        return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{self._random.randrange(1000):03d}Z"
