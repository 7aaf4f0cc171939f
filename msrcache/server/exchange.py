"""One request and what becomes of its answer: made when the headers are read, told to metrics and the access
log at the end.

Not here: how it is answered (handlers, deliver).
"""

from dataclasses import dataclass, field
from typing import cast

from aiohttp import web

from msrcache.access.caller import Caller
from msrcache.oci.pulls import Pull
from msrcache.oci.registry import Credential, Outcome
from msrcache.server.connection import Connection
from msrcache.server.forwarded import origin, request_id
from msrcache.server.settings import ServerSettings
from msrcache.telemetry.accesslog import AccessRecord
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.trail import Trail


@dataclass(slots=True)
class Exchange:
    """What is known of a request so far. Times are monotonic seconds but for `stamp`."""

    request: web.BaseRequest
    connection: Connection
    settings: ServerSettings
    caller: Caller
    clock: Clock
    began: float
    stamp: float
    pull: Pull | None = None
    outcome: Outcome | None = None
    status: int = 0
    sent: int = 0
    first_byte: float | None = None
    closing: bool = False
    """Whether the connection ends with this answer."""
    quiet: bool = False
    """Whether this is a probe, of which only failures are logged."""
    trail: Trail = field(default_factory=Trail)

    @property
    def request_id(self) -> str:
        return self.caller.request_id

    @property
    def begun(self) -> bool:
        """Whether anything of the answer has been sent: from here on an error can only cut it."""
        return self.first_byte is not None

    @property
    def overloaded(self) -> bool:
        """Whether its header block is beyond the limit; one read may have brought more than that."""
        if not self.connection.crowded:
            return False
        size = sum(len(name) + len(value) + 4 for name, value in self.request.raw_headers)
        return size > self.settings.limits.headers

    def answering(self, status: int) -> None:
        """The answer's headers are on their way."""
        self.status = status
        self.first_byte = self.clock.monotonic() - self.began


def open_exchange(request: web.BaseRequest, settings: ServerSettings, clock: Clock) -> Exchange:
    """The exchange of a request whose headers have just been read."""
    connection = cast("Connection", request.protocol)
    client = origin(request, connection, settings.trusted)
    caller = Caller(
        credential=Credential(request.headers.get("Authorization", "")),
        address=client.address,
        request_id=request_id(request, connection),
        scheme=client.scheme,
        host=client.host,
    )
    return Exchange(request, connection, settings, caller, clock, clock.monotonic(), clock.time())


def record(exchange: Exchange, identity: str, duration: float) -> AccessRecord:
    """The access log's record of an exchange that has ended."""
    request, pull = exchange.request, exchange.pull
    version = request.version
    reference = getattr(pull, "reference", None) or getattr(pull, "digest", None)
    return AccessRecord(
        started=exchange.stamp,
        address=exchange.caller.address,
        caller=identity,
        method=request.method,
        path=request.raw_path,
        protocol=f"HTTP/{version.major}.{version.minor}",
        status=exchange.status,
        bytes_sent=exchange.sent,
        duration=duration,
        first_byte=exchange.first_byte,
        referer=request.headers.get("Referer", ""),
        user_agent=request.headers.get("User-Agent", ""),
        request_id=exchange.request_id,
        repository=str(getattr(pull, "repository", "")),
        reference=str(reference or ""),
        outcome=exchange.outcome or "",
        upstream=str(exchange.trail),
    )
