"""The test's hand in a client node: does on command what a replica there would do, and runs programs.

One JSON object a line over one TCP connection, each a call; answers come in any order. `remote` is the other side.
Started by node.sh; it imports no test, only the driver.
"""

import asyncio
import base64
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from msrcache.oci.ranges import Span
from msrcache.storage.driver import ObjectInfo, SpoolFile
from msrcache.storage.errors import RangeNotSatisfiable, StorageError
from msrcache.storage.filesystem import Filesystem, make
from msrcache.storage.filewriter import FileWriter

LIMIT = 1 << 26
SPOOL = Path("/mnt/tmp/spool")


def packed(data: bytes) -> str:
    """Bytes as JSON takes them."""
    return base64.b64encode(data).decode()


def unpacked(text: str) -> bytes:
    """And back."""
    return base64.b64decode(text)


def _row(info: ObjectInfo) -> list[Any]:
    return [info.size, info.modified]


class Agent:
    """What stands in this node: drivers, writers, open objects, spool files, each by a number."""

    def __init__(self) -> None:
        self._things: dict[int, Any] = {}
        self._spools: dict[str, SpoolFile] = {}
        self._stacks: dict[int, AsyncExitStack] = {}

    def _keep(self, thing: object) -> int:
        number = max(self._things, default=0) + 1
        self._things[number] = thing
        return number

    def _driver(self, number: int) -> Filesystem:
        driver = self._things[number]
        assert isinstance(driver, Filesystem)
        return driver

    def _writer(self, number: int) -> FileWriter:
        writer = self._things[number]
        assert isinstance(writer, FileWriter)
        return writer

    async def make(self, parameters: dict[str, str]) -> int:
        """A driver with these parameters."""
        return self._keep(make(parameters))

    async def stat(self, driver: int, key: str) -> list[Any]:
        """As Driver."""
        return _row(await self._driver(driver).stat(key))

    async def open(self, driver: int, key: str, span: list[int] | None) -> list[Any]:
        """Number of the open object, what is told of it, its span."""
        stack = AsyncExitStack()
        wanted = Span(*span) if span else None
        content = await stack.enter_async_context(self._driver(driver).open(key, wanted))
        number = self._keep(content)
        self._stacks[number] = stack
        return [number, _row(content.info), [content.span.start, content.span.stop]]

    async def read(self, number: int, start: int, size: int) -> str:
        """Bytes of an open object."""
        return packed(await asyncio.to_thread(os.pread, self._things[number].fd, size, start))

    async def leave(self, number: int) -> None:
        """Close an open object."""
        del self._things[number]
        await self._stacks.pop(number).aclose()

    async def put(self, driver: int, key: str, data: str) -> None:
        """As Driver."""
        await self._driver(driver).put(key, unpacked(data))

    async def create(self, driver: int, key: str, data: str) -> bool:
        """As Driver."""
        return await self._driver(driver).create(key, unpacked(data))

    async def delete(self, driver: int, keys: list[str]) -> None:
        """As Driver."""
        await self._driver(driver).delete(*keys)

    async def listing(self, driver: int, prefix: str) -> list[list[Any]]:
        """As Driver, all at once."""
        return [[key, *_row(info)] async for key, info in self._driver(driver).list(prefix)]

    async def sweep(self, driver: int, older_than: float) -> int:
        """As Driver."""
        return await self._driver(driver).sweep(older_than)

    async def close(self, driver: int) -> None:
        """As Driver."""
        await self._driver(driver).close()

    async def writer(self, driver: int, key: str) -> int:
        """A writer that was entered."""
        writer = self._driver(driver).writer(key)
        await writer.__aenter__()
        return self._keep(writer)

    async def grow(self, path: str, data: str) -> None:
        """More bytes at the end of a spool file."""
        if path not in self._spools:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
            self._spools[path] = SpoolFile(os.open(path, flags, 0o600), Path(path))
        file = self._spools[path]
        os.pwrite(file.fd, unpacked(data), os.fstat(file.fd).st_size)

    async def drop(self, path: str) -> None:
        """A spool file that nobody needs any more."""
        if (file := self._spools.pop(path, None)) is not None:
            file.path.unlink(missing_ok=True)
            os.close(file.fd)

    async def write(self, writer: int, path: str, span: list[int]) -> None:
        """As Writer."""
        await self._writer(writer).write(self._spools[path], Span(*span))

    async def commit(self, writer: int) -> list[Any]:
        """As Writer."""
        return _row(await self._writer(writer).commit())

    async def abort(self, writer: int) -> None:
        """As Writer."""
        await self._writer(writer).abort()

    async def python(self, source: str, names: dict[str, Any]) -> Any:
        """Run some lines in a thread; what they leave in `result` is the answer."""
        there = {"things": self._things, **names}
        await asyncio.to_thread(exec, source, there)
        return there.get("result")

    async def shell(self, script: str) -> list[Any]:
        """Run a script: its code and what it said."""
        process = await asyncio.create_subprocess_shell(
            script,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        return [process.returncode, said.decode(errors="replace")]


class Connection:
    """Calls that come over one connection."""

    def __init__(self, agent: Agent, writer: asyncio.StreamWriter) -> None:
        self._agent = agent
        self._writer = writer
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until it ends."""
        while line := await reader.readline():
            call = json.loads(line)
            number = call["call"]
            if call["name"] == "cancel":
                if (task := self._calls.get(number)) is not None:
                    task.cancel()
                continue
            method = getattr(self._agent, call["name"])
            task = asyncio.create_task(self._answer(number, lambda m=method, c=call: m(*c["given"])))  # type: ignore[misc]
            self._calls[number] = task
            task.add_done_callback(lambda _, n=number: self._calls.pop(n, None))  # type: ignore[misc]

    async def _answer(self, number: int, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            answer: dict[str, Any] = {"value": await work()}
        except StorageError as error:
            size = error.size if isinstance(error, RangeNotSatisfiable) else None
            answer = {"kind": type(error).__name__, "driver": error.driver, "key": error.key, "size": size}
            answer["text"] = f"{error.message} ({error.cause!r})"
        except asyncio.CancelledError:
            answer = {"kind": "cancelled", "text": ""}
        except Exception as error:  # noqa: BLE001 - told to the test
            answer = {"kind": "failed", "text": f"{error!r}\n{traceback.format_exc()}"}
        self._writer.write(json.dumps({"call": number, **answer}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()


async def serve(address: str, port: int) -> None:
    """For ever."""
    agent = Agent()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await Connection(agent, writer).serve(reader)
        writer.close()

    server = await asyncio.start_server(connected, address, port, limit=LIMIT)
    print("AGENT_READY", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
