"""How much one client may ask for: a bucket of tokens for each, of which every request to /v1 takes one.

The buckets are this process's own. Shared in Redis they would cost every request a round trip, also those that the
local cache answers, and would have to be replaced by these whenever Redis does not answer.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .admission import PROTECTED
from .metrics import Metrics
from .problems import problem

MOST_CLIENTS = 10_000
LONGEST_SECONDS = 86_400  # that a client is told to wait
NETWORK_BITS = 64  # of an IPv6 address: whoever has one has the other 64 bits as well
Client = tuple[str, str]  # a name that was proved, or an address: one is never taken for the other


class Bucket(NamedTuple):
    """The tokens there were at a time, in seconds of the clock."""

    tokens: float
    at: float


class Verdict(NamedTuple):
    """Whether a request may go on; what is left; seconds until the bucket is full, and until there is a token."""

    allowed: bool
    remaining: int
    reset: int
    retry_after: int


def take(bucket: Bucket, now: float, per_second: float, burst: int) -> tuple[Bucket, Verdict]:
    """Takes a token out of a bucket that gets `per_second` and holds `burst`. Without one, nothing is taken."""
    tokens = min(float(burst), bucket.tokens + max(0.0, now - bucket.at) * per_second)
    allowed = tokens >= 1
    tokens -= allowed
    reset, retry = (math.ceil(min(LONGEST_SECONDS, (wanted - tokens) / per_second)) for wanted in (burst, 1))
    return Bucket(tokens, now), Verdict(allowed, int(tokens), reset, max(1, retry))


def client_of(scope: Scope) -> Client:
    """Who asks: the client that was authenticated, or else the peer's address. What headers say is not believed."""
    if "client_name" in scope:
        return "name", scope["client_name"]
    return "address", _network(scope["client"][0] if scope.get("client") else "")


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a Unix socket, or a test's client
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), NETWORK_BITS), strict=False))


class Buckets:
    """The buckets of the `most` clients that asked last. Who has been forgotten begins with a full one."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float], most: int = MOST_CLIENTS) -> None:
        self._per_second = per_second
        self.burst = burst
        self._clock = clock
        self._most = most
        self._buckets: OrderedDict[Client, Bucket] = OrderedDict()

    def take(self, client: Client) -> Verdict:
        now = self._clock()
        bucket = self._buckets.pop(client, None) or Bucket(self.burst, now)
        self._buckets[client], verdict = take(bucket, now, self._per_second, self.burst)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return verdict


class LimitRate:
    """Refuses with 429 whoever asks too often, before the body is read. Inside of Authenticate, which names clients."""

    def __init__(
        self,
        app: ASGIApp,
        per_second: float,
        burst: int | None,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`per_second` 0: no limit. Unless set, `burst` is what comes in one second."""
        self._app = app
        self._metrics = metrics
        self._buckets = Buckets(per_second, burst or max(1, math.ceil(per_second)), clock) if per_second else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._buckets is None or scope["type"] != "http" or not scope["path"].startswith(PROTECTED):
            return await self._app(scope, receive, send)
        verdict = self._buckets.take(client_of(scope))
        headers = _headers(self._buckets.burst, verdict)

        async def send_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        if verdict.allowed:
            return await self._app(scope, receive, send_limits)
        self._metrics.rate_limited.inc()
        detail = f"Too many requests from this client; try again in {verdict.retry_after} s."
        await problem(429, detail, {"Retry-After": str(verdict.retry_after)})(scope, receive, send_limits)


def _headers(burst: int, verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """Those of the IETF's draft-ietf-httpapi-ratelimit-headers, up to its version 07."""
    values = {b"limit": burst, b"remaining": verdict.remaining, b"reset": verdict.reset}
    return [(b"ratelimit-" + name, str(value).encode()) for name, value in values.items()]
