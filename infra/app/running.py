"""Asks a running `up` or role for its state, bypassing any proxy in the environment."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any, Final

TIMEOUT_S: Final = 5.0


def health_of(url: str) -> dict[str, Any] | None:
    """The body of URL/health, whatever its HTTP status; None if there is no answer with a body."""
    return _body_of(f"{url}/health")


def readiness_of(probe: str) -> dict[str, Any] | None:
    """The body of the probe PROBE/ready, likewise."""
    return _body_of(f"{probe}/ready")


def _body_of(url: str) -> dict[str, Any] | None:
    # Our own process on this machine, under a name its certificate may not have; nothing secret is sent.
    own = ssl.create_default_context()
    own.check_hostname, own.verify_mode = False, ssl.CERT_NONE
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=own))
    opener = urllib.request.build_opener(*handlers)
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
