"""Work that goes on beside what a stack holds open."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack


def in_background(stack: AsyncExitStack, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
    """Run it while the stack is open; it is cancelled, and awaited, on leaving."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return task
