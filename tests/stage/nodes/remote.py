"""The test's side of an agent: its calls, and a Driver whose work is done on another machine's kernel.

An error there is raised here as what it was; a call whose caller leaves is cancelled there.
Not here: what the calls do (`agent`).
"""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from msrcache.oci.ranges import Span
from msrcache.storage import errors
from msrcache.storage.driver import ObjectInfo, SpoolFile, StreamContent
from tests.stage.nodes.agent import packed, unpacked
from tests.stage.nodes.network import Network

PATIENCE: Final = 60.0
PIECE: Final = 1 << 20


class Remote(Exception):
    """Something else than a StorageError failed in the node; the text has its traceback."""


class Agent:
    """Calls to one agent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read(reader))

    async def call(self, name: str, *given: object, patience: float = PATIENCE) -> Any:
        """Have it done. Raises StorageError, or Remote."""
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send({"call": number, "name": name, "given": given})
        try:
            async with asyncio.timeout(patience):
                answer = await waiting
        except asyncio.CancelledError:
            self._send({"call": number, "name": "cancel"})
            raise
        finally:
            del self._waiting[number]
        if "kind" in answer:
            raise _error(answer)
        return answer["value"]

    async def python(self, source: str, **names: object) -> Any:
        """Run some lines there; what they leave in `result` is the answer."""
        return await self.call("python", source, names)

    async def shell(self, script: str) -> str:
        """Run a script there that must succeed: what it said."""
        code, said = await self.call("shell", script)
        assert code == 0, f"{script} ended with {code}: {said}"
        return str(said)

    async def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        self._writer.close()

    def _send(self, message: Mapping[str, object]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            answer = json.loads(line)
            waiting = self._waiting.get(answer["call"])
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)


@asynccontextmanager
async def agent(network: Network, address: str, port: int) -> AsyncIterator[Agent]:
    """A connection to a node's agent."""
    made = Agent(*await network.connect(address, port))
    try:
        yield made
    finally:
        await made.close()


class RemoteDriver:
    """Implements Driver: every call is one of the driver with the number `number` in the node."""

    def __init__(self, calls: Agent, parameters: Mapping[str, str], *, spool: str) -> None:
        """`spool`: the folder in the node for what its writers are given spans of."""
        self.name = "filesystem"
        self.create_is_exclusive = True
        self.calls = calls
        self.spool = spool
        self._parameters = dict(parameters)
        self._making: asyncio.Task[int] | None = None

    async def number(self) -> int:
        """The driver's number there; it is made with the first call."""
        if self._making is None:
            self._making = asyncio.create_task(self.calls.call("make", self._parameters))
        return await asyncio.shield(self._making)

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return ObjectInfo(*await self.calls.call("stat", await self.number(), key))

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[StreamContent]:
        """As Driver; the bytes are read when they are asked for."""
        wanted = None if span is None else [span.start, span.stop]
        number, info, found = await self.calls.call("open", await self.number(), key, wanted)
        try:
            yield StreamContent(ObjectInfo(*info), Span(*found), self._chunks(number, Span(*found)))
        finally:
            await self.calls.call("leave", number)

    async def _chunks(self, number: int, span: Span) -> AsyncIterator[bytes]:
        for start in range(span.start, span.stop, PIECE):
            size = min(PIECE, span.stop - start)
            yield unpacked(await self.calls.call("read", number, start, size))

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        await self.calls.call("put", await self.number(), key, packed(data))

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver."""
        return bool(await self.calls.call("create", await self.number(), key, packed(data)))

    def writer(self, key: str) -> "RemoteWriter":
        """As Driver."""
        return RemoteWriter(self, key)

    async def delete(self, *keys: str) -> None:
        """As Driver."""
        await self.calls.call("delete", await self.number(), keys)

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver."""
        for key, size, modified in await self.calls.call("listing", await self.number(), prefix):
            yield key, ObjectInfo(size, modified)

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver."""
        del key, ttl, endpoint
        return None

    async def sweep(self, older_than: float) -> int:
        """As Driver."""
        return int(await self.calls.call("sweep", await self.number(), older_than))

    async def close(self) -> None:
        """As Driver."""
        if self._making is not None:
            await self.calls.call("close", await self.number())


class RemoteWriter:
    """Implements Writer: the spool file is brought to the node as it grows."""

    def __init__(self, driver: RemoteDriver, key: str) -> None:
        self._driver = driver
        self._key = key
        self._number: int | None = None
        self._brought: dict[str, int] = {}
        self._source: SpoolFile | None = None

    async def __aenter__(self) -> Self:
        self._number = await self._driver.calls.call("writer", await self._driver.number(), self._key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abort()
        for path in self._brought:
            await self._driver.calls.call("drop", path)

    async def write(self, source: SpoolFile, span: Span) -> None:
        """As Writer."""
        self._source = source
        path = await self._bring(source)
        await self._driver.calls.call("write", self._number, path, [span.start, span.stop])

    async def commit(self) -> ObjectInfo:
        """As Writer."""
        if self._source is not None:
            if self._source.path.exists():
                await self._bring(self._source)
            else:
                await self._driver.calls.call("drop", self._there(self._source.path))
        return ObjectInfo(*await self._driver.calls.call("commit", self._number))

    async def abort(self) -> None:
        """As Writer."""
        await self._driver.calls.call("abort", self._number)

    def _there(self, path: Path) -> str:
        return f"{self._driver.spool}/{self._number}-{path.name}"

    async def _bring(self, source: SpoolFile) -> str:
        """The file's path in the node, with all that it holds by now."""
        path = self._there(source.path)
        size = os.fstat(source.fd).st_size
        at = self._brought.get(path, 0)
        if at < size or path not in self._brought:
            self._brought[path] = size
            await self._driver.calls.call("grow", path, packed(os.pread(source.fd, size - at, at)))
        return path


def _error(answer: Mapping[str, Any]) -> Exception:
    kind = getattr(errors, answer["kind"], None)
    if kind is None:
        return Remote(answer["text"])
    if kind is errors.RangeNotSatisfiable:
        return errors.RangeNotSatisfiable(answer["driver"], answer["key"], size=answer["size"])
    raised: errors.StorageError = kind(answer["driver"], answer["key"], None, answer["text"])
    return raised
