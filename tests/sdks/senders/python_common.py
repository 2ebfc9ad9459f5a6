"""What both Python senders share: story.json once, or numbered events until the file STOP exists; prints how many."""

import json
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

DOOR, KEY = os.environ["DOOR"], os.environ["KEY"]


def run(client: Any) -> None:
    number, stop = 0, os.environ.get("STOP")
    if stop is None:
        for each in json.loads((Path(__file__).parents[1] / "story.json").read_text()):
            call, at = each.pop("call"), datetime.fromisoformat(each.pop("at"))
            send: Callable[..., object] = getattr(client, call)
            send(**{_snake(name): value for name, value in each.items()}, timestamp=at)
    else:
        while not Path(stop).exists():
            client.track("u-1", "Step Taken", {"number": number})
            number += 1
            time.sleep(int(os.environ["EVERY_MS"]) / 1_000)
    client.shutdown()
    print(number)


def _snake(name: str) -> str:
    return {"userId": "user_id", "groupId": "group_id", "previousId": "previous_id"}.get(name, name)
