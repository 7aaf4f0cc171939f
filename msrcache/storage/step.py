"""One step of a listing. What is at hand already, as all of a page but its first item, needs no timer and no task.

A timer for each of a million items costs more than all else that is done with them.
"""

from collections.abc import AsyncIterator, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Step(Generic[T]):
    """The next item of an iterator: begun without waiting, then awaited where that did not do."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        # What a coroutine and an async generator's step have, and no other awaitable needs to.
        self._step = cast("Generator[Any, Any, T]", items.__anext__())
        self._waiting: Any = None
        self._error: BaseException | None = None
        self.item: T

    def begin(self) -> bool:
        """Whether the item is there; else, and where it failed, the step is to be awaited."""
        try:
            self._waiting = self._step.send(None)
        except StopIteration as done:
            self.item = done.value
            return True
        except (Exception, StopAsyncIteration) as error:  # noqa: BLE001  raised where it is awaited
            self._error = error
        return False

    def __await__(self) -> Generator[Any, Any, T]:
        """As the iterator's own step, from where it waits."""
        if self._error is not None:
            raise self._error
        waiting = self._waiting
        try:
            while True:
                try:
                    sent = yield waiting
                except BaseException as error:  # noqa: BLE001  it is the step's to handle
                    waiting = self._step.throw(error)
                else:
                    waiting = self._step.send(sent)
        except StopIteration as done:
            item: T = done.value
            return item
