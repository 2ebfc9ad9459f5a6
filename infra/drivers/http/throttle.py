"""Rate limits per caller and per address: above them, 429 with Retry-After. Shared by all HTTP processes."""

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from infra.adapters.machine.shared_buckets import SharedBuckets
from infra.drivers.http.client_address import Proxies, network_of
from schemas.errors import TooMany

if TYPE_CHECKING:
    from infra.app.session import Session

BURST_S: Final = 20.0  # seconds' worth allowed in one burst
STRANGERS: Final = 0.1  # of the API's rate, for an address without a valid token
SIGN_IN_BURST_S: Final = 60.0


class Rates(NamedTuple):
    """Requests per second; 0: unlimited."""

    api: float = 300.0  # per caller
    search: float = 50.0  # per caller, in addition to `api`
    sign_in: float = 1.0  # per address


class Throttle:
    """Each method raises TooMany."""

    def __init__(self, buckets: SharedBuckets, proxies: Proxies, rates: Rates) -> None:
        self._buckets = buckets
        self._proxies = proxies
        self._rates = rates

    def caller(self, name: str) -> None:
        """A request from an authenticated caller."""
        self._take(f"api {name}", self._rates.api, BURST_S, "requests")

    def search(self, name: str) -> None:
        self._take(f"search {name}", self._rates.search, BURST_S, "searches")

    def stranger(self, scope: Mapping[str, Any]) -> None:
        """A request without credentials, or with unknown ones."""
        self._take(self._stranger(scope), self._rates.api * STRANGERS, BURST_S, "requests without a valid token")

    def check_stranger(self, scope: Mapping[str, Any]) -> None:
        """As `stranger`, but takes nothing: the caller may turn out to be known."""
        rate = self._rates.api * STRANGERS
        if rate:
            _tell(self._buckets.wait_s(self._stranger(scope), rate, rate * BURST_S), rate, "requests without a token")

    def sign_in(self, scope: Mapping[str, Any]) -> None:
        """A sign-in attempt, right or wrong: checking a password costs 64 MiB and 0.1 s."""
        name = f"sign-in {network_of(self._proxies.client(scope))}"
        self._take(name, self._rates.sign_in, SIGN_IN_BURST_S, "attempts to sign in")

    def _stranger(self, scope: Mapping[str, Any]) -> str:
        return f"stranger {network_of(self._proxies.client(scope))}"

    def _take(self, name: str, rate: float, burst_s: float, what: str) -> None:
        if rate:
            _tell(self._buckets.take(name, rate, max(1.0, rate * burst_s)), rate, what)


def _tell(wait_s: float, rate: float, what: str) -> None:
    if wait_s:
        raise TooMany(f"more than {rate:g} {what} a second: wait {ceil(wait_s)} s", retry_after_s=ceil(wait_s))


def throttle_of(session: "Session", buckets: SharedBuckets) -> Throttle:
    """From the settings."""
    settings = session.settings
    rates = Rates(settings.api_rate, settings.search_rate, settings.sign_in_rate / 60)
    return Throttle(buckets, Proxies(settings.proxies), rates)
