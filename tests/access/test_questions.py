"""Promises of access.questions: asked once, owned by nobody who waits, forgotten when answered."""

import asyncio

import pytest

from msrcache.access.questions import Questions, answer_of
from msrcache.oci.errors import Denied, Unavailable


async def test_an_answer_is_shared_by_those_who_waited_and_then_forgotten() -> None:
    """The next one asks anew."""
    questions: Questions[str, int] = Questions()
    go = asyncio.Event()

    async def ask() -> int:
        await go.wait()
        return 7

    task = questions.put("q", ask)
    assert questions.under_way("q") is task
    waiting = [asyncio.create_task(answer_of(task)) for _ in range(3)]
    go.set()
    assert await asyncio.gather(*waiting) == [7, 7, 7]
    assert questions.under_way("q") is None
    assert len(questions) == 0


async def test_patience_ends_the_waiting_and_not_the_question() -> None:
    """Whoever waits longer gets the answer."""
    questions: Questions[str, int] = Questions()
    go = asyncio.Event()

    async def ask() -> int:
        await go.wait()
        raise Denied

    task = questions.put("q", ask)
    with pytest.raises(TimeoutError):
        await answer_of(task, patience=0)
    go.set()
    with pytest.raises(Denied):
        await answer_of(task)


async def test_closing_stops_the_questions() -> None:
    """Those who wait are told Unavailable; closing what is idle is harmless."""
    questions: Questions[str, bool] = Questions()
    waiting = asyncio.create_task(answer_of(questions.put("q", asyncio.Event().wait)))
    await asyncio.sleep(0)
    await questions.close()
    with pytest.raises(Unavailable):
        await waiting
    await questions.close()


async def test_an_error_that_nobody_waited_for_is_no_noise() -> None:
    """Every client may have left."""
    questions: Questions[str, int] = Questions()

    async def ask() -> int:
        raise Denied

    task = questions.put("q", ask)
    await asyncio.wait({task})
    del task
    assert len(questions) == 0
