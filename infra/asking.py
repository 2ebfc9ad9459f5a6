"""Asks a running `up` or role how it is, past any proxy of the environment."""

import json
import urllib.error
import urllib.request
from typing import Any, Final

TIMEOUT_S: Final = 5.0


def health_of(url: str) -> dict[str, Any] | None:
    """The body of URL/health, whatever its HTTP status; None when nobody answers with one."""
    return _body_of(f"{url}/health")


def readiness_of(probe: str) -> dict[str, Any] | None:
    """The body of the probe PROBE/ready, likewise."""
    return _body_of(f"{probe}/ready")


def _body_of(url: str) -> dict[str, Any] | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            body = answer.read()
    except urllib.error.HTTPError as err:
        with err:
            body = err.read()
    except OSError:
        return None
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
