"""Names to addresses without stopping the loop, and without forgetting them when the name server is away.

Lookups run on threads of their own (the loop's shared ones may all be waiting for a disk), are shared by all
who ask for one name at once, and are remembered for `ttl`. When a lookup fails, the last known addresses are
used: a name server that is away for a minute must not take the upstream with it.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp.abc import AbstractResolver, ResolveResult

from msrcache.telemetry.clock import Clock
from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError

Lookup = Callable[[str, int, socket.AddressFamily], Awaitable[list[ResolveResult]]]
_Question = tuple[str, int, socket.AddressFamily]

_THREADS = 4
_NAMES = 1024
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class RememberingResolver(AbstractResolver):
    """A lookup with a memory. Raises OSError where a name was never resolved and can't be now."""

    def __init__(self, lookup: Lookup, *, ttl: float, clock: Clock) -> None:
        self._lookup = lookup
        self._ttl = ttl
        self._clock = clock
        self._known: dict[_Question, tuple[float, list[ResolveResult]]] = {}
        self._asking: dict[_Question, asyncio.Task[list[ResolveResult]]] = {}
        self._closers: list[Callable[[], Awaitable[None]]] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of the host, at least one."""
        question = (host, port, family)
        at, found = self._known.get(question, (-self._ttl, []))
        if found and self._clock.monotonic() < at + self._ttl:
            return found
        try:
            return await asyncio.shield(self._ask(question))
        except OSError:
            if found:
                return found
            raise

    def _ask(self, question: _Question) -> asyncio.Task[list[ResolveResult]]:
        task = self._asking.get(question)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._remember(question))
            self._asking[question] = task
            task.add_done_callback(lambda done: self._asked(question, done))
        return task

    def _asked(self, question: _Question, done: asyncio.Task[list[ResolveResult]]) -> None:
        self._asking.pop(question, None)
        if not done.cancelled():
            done.exception()  # seen: whoever waited may have left

    async def _remember(self, question: _Question) -> list[ResolveResult]:
        found = await self._lookup(*question)
        if not found:
            raise OSError(None, f"no address for {question[0]}")
        self._known.pop(question, None)
        self._known[question] = (self._clock.monotonic(), found)
        while len(self._known) > _NAMES:
            del self._known[next(iter(self._known))]
        return found

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Something the lookup needs gone when the resolver is closed."""
        self._closers.append(closer)

    async def close(self) -> None:
        """Stops what is being asked."""
        for task in tuple(self._asking.values()):
            task.cancel()
        for closer in self._closers:
            await closer()


def _results(host: str, port: int, found: Sequence[tuple[int, str, int]]) -> list[ResolveResult]:
    return [
        ResolveResult(hostname=host, host=address, port=port, family=family, proto=proto, flags=_NUMERIC)
        for family, address, proto in found
    ]


def _system(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    """On a thread: the operating system's own way."""
    infos = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return _results(host, port, [(kind, str(address[0]), proto) for kind, _, proto, _, address in infos])


def system_resolver(*, ttl: float, clock: Clock) -> RememberingResolver:
    """Asks the operating system, on a few threads of its own."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="names")

    async def lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        return await asyncio.get_running_loop().run_in_executor(threads, partial(_system, host, port, family))

    async def close() -> None:
        threads.shutdown(wait=False, cancel_futures=True)

    resolver = RememberingResolver(lookup, ttl=ttl, clock=clock)
    resolver.on_close(close)
    return resolver


def open_resolver(settings: UpstreamSettings, clock: Clock) -> AbstractResolver:
    """The system's names, or those of the servers that the settings name. Must be called with a loop running."""
    if not settings.resolver:
        return system_resolver(ttl=settings.resolver_ttl, clock=clock)
    return _chosen_resolver(settings, clock)


def _chosen_resolver(settings: UpstreamSettings, clock: Clock) -> AbstractResolver:
    from msrcache.upstream.nameserver import NameServers  # noqa: PLC0415 - few operators name servers of their own

    servers = NameServers(tuple(_server(text) for text in settings.resolver))

    async def lookup(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        found = await servers.addresses(host, family)
        return _results(
            host,
            port,
            [
                (socket.AF_INET6 if ":" in text else socket.AF_INET, text, socket.IPPROTO_TCP)
                for text in found
            ],
        )

    return RememberingResolver(lookup, ttl=settings.resolver_ttl, clock=clock)


def _server(text: str) -> tuple[str, int]:
    """`address`, `address:port` or `[v6]:port` of a name server."""
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = text, "53"
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise UpstreamSettingsError(
            f"the name server {text!r} must be an address, with or without a port: 10.0.0.53 or 10.0.0.53:5353"
        ) from None
