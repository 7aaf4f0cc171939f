"""sockets.bodies: which way a body is read, and that both give the same bytes."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from msrcache.sockets.bodies import body_of, past_the_client
from msrcache.sockets.intake import LARGE
from tests.stage.process import free_port

DATA = random.Random(3).randbytes(LARGE + 12345)


@asynccontextmanager
async def _answers(*, chunked: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer of a server that sends DATA."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if not chunked:
            response.content_length = len(DATA)
        await response.prepare(request)
        await response.write(DATA)
        await response.write_eof()
        return response

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/") as response,
        ):
            yield response
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_bytes_are_the_same_either_way(*, chunked: bool) -> None:
    """A large body of a known length goes past the client, one without goes through it."""
    async with _answers(chunked=chunked) as response:
        assert b"".join([bytes(piece) async for piece in body_of(response)]) == DATA


async def test_small_bodies_and_those_without_a_length_stay_with_the_client() -> None:
    """Their connection can be used again."""
    async with _answers() as response:
        assert past_the_client(response, least=len(DATA) + 1) is None
        assert await response.read() == DATA
        assert past_the_client(response, least=1) is None  # all of it was read
    async with _answers(chunked=True) as response:
        assert past_the_client(response, least=1) is None


async def test_what_the_client_had_read_is_not_lost() -> None:
    """However much came with the head, or behind it before anybody asked."""
    async with _answers() as response:
        for _ in range(20):
            await asyncio.sleep(0)
        intake = past_the_client(response)
        assert intake is not None
        found = b""
        while piece := await intake.read():
            found += piece
        assert found == DATA
