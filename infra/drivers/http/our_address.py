"""Our address as the sender of a request sees it, for the answers that have to name it."""

import re
from collections.abc import Mapping
from typing import Any, Final

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_LOCAL: Final = re.compile(r"(?:localhost|127(?:\.[0-9]+){3}|\[::1\])(?::[0-9]+)?")


def our_address(scope: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Scheme and host, such as `https://cdp.shop.example`, without a slash at the end.

    What a proxy reports is taken from anybody: the answer goes to this sender alone, and no cache may share it.
    A page of https can only have come by https, whatever the proxy before us forgot to say.
    """
    host = headers.get("x-forwarded-host", "").split(",")[0].strip() or headers.get("host", "")
    if not _HOST.fullmatch(host):
        server = scope.get("server") or ("127.0.0.1", 8700)
        host = f"{server[0]}:{server[1]}"
    said = headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    from_https = headers.get("origin", "").startswith("https://") and not _LOCAL.fullmatch(host)
    secure = scope.get("scheme") == "https" or said == "https" or from_https
    return f"{'https' if secure else 'http'}://{host}"
