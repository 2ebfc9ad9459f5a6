"""How often a caller or an address may ask. Above it: 429 with Retry-After. Kept by all HTTP processes together."""

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from infra.adapters.machine.shared_buckets import SharedBuckets
from infra.drivers.http.client_address import Proxies, network_of
from schemas.errors import TooMany

if TYPE_CHECKING:
    from infra.app.bootstrap import Session

BURST_S: Final = 20.0  # so many seconds' worth may come at once
STRANGERS: Final = 0.1  # of the API's rate: what an address may ask without a token, or with a wrong one
SIGN_IN_BURST_S: Final = 60.0


class Rates(NamedTuple):
    """Requests a second; 0: without a limit."""

    api: float = 300.0  # of one caller
    search: float = 50.0  # of one caller, beside `api`
    sign_in: float = 1.0  # of one address


class Throttle:
    """Each method raises TooMany."""

    def __init__(self, buckets: SharedBuckets, proxies: Proxies, rates: Rates) -> None:
        self._buckets = buckets
        self._proxies = proxies
        self._rates = rates

    def caller(self, name: str) -> None:
        """Somebody who showed who they are."""
        self._take(f"api {name}", self._rates.api, BURST_S, "requests")

    def search(self, name: str) -> None:
        self._take(f"search {name}", self._rates.search, BURST_S, "searches")

    def stranger(self, scope: Mapping[str, Any]) -> None:
        """A request that shows nobody, or somebody we do not know."""
        self._take(self._stranger(scope), self._rates.api * STRANGERS, BURST_S, "requests without a valid token")

    def check_stranger(self, scope: Mapping[str, Any]) -> None:
        """As `stranger`, and takes nothing: who asks may turn out to be known."""
        rate = self._rates.api * STRANGERS
        if rate:
            _tell(self._buckets.wait_s(self._stranger(scope), rate, rate * BURST_S), rate, "requests without a token")

    def sign_in(self, scope: Mapping[str, Any]) -> None:
        """A try to sign in, right or wrong: a password costs 64 MiB and a tenth of a second."""
        name = f"sign-in {network_of(self._proxies.client(scope))}"
        self._take(name, self._rates.sign_in, SIGN_IN_BURST_S, "tries to sign in")

    def _stranger(self, scope: Mapping[str, Any]) -> str:
        return f"stranger {network_of(self._proxies.client(scope))}"

    def _take(self, name: str, rate: float, burst_s: float, what: str) -> None:
        if rate:
            _tell(self._buckets.take(name, rate, max(1.0, rate * burst_s)), rate, what)


def _tell(wait_s: float, rate: float, what: str) -> None:
    if wait_s:
        raise TooMany(f"more than {rate:g} {what} a second: wait {ceil(wait_s)} s", retry_after_s=ceil(wait_s))


def throttle_of(session: "Session", buckets: SharedBuckets) -> Throttle:
    """By the settings."""
    settings = session.settings
    rates = Rates(settings.api_rate, settings.search_rate, settings.sign_in_rate / 60)
    return Throttle(buckets, Proxies(settings.proxies), rates)
