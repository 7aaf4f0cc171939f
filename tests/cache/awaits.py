"""Every await of a module, found in its syntax tree, and a fault at any one of them.

The functions of an instrumented module get the code of a rewritten tree, in which each `await x`, each entry into and
exit from an `async with` and each step of an `async for` goes through a Trap first. Not for module-level code.
"""

import ast
import asyncio
import importlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Generic, TypeVar

import pytest

HOOK = "_trap"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Point:
    """A place where a task may be suspended. `text` is the source of what is awaited."""

    module: str
    number: int
    function: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.module}-{self.number}-{self.function}-{self.kind}"


class _Rewrite(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self.points: list[Point] = []
        self._module = module
        self._function: list[str] = []

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        self._function.append(node.name)
        self.generic_visit(node)
        self._function.pop()
        return node

    def visit_Await(self, node: ast.Await) -> ast.AST:
        node.value = self._through("awaited", node.value, "await")
        self.generic_visit(node)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        for item in node.items:
            item.context_expr = self._through("managed", item.context_expr, "enter", "exit")
        self.generic_visit(node)
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        node.iter = self._through("iterated", node.iter, "next")
        self.generic_visit(node)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        if node.is_async:
            node.iter = self._through("iterated", node.iter, "next")
        self.generic_visit(node)
        return node

    def _through(self, method: str, value: ast.expr, *kinds: str) -> ast.Call:
        first, text = len(self.points), ast.unparse(value)
        for kind in kinds:
            self.points.append(Point(self._module, len(self.points), self._function[-1], kind, text))
        hook = ast.Attribute(ast.Name(HOOK, ast.Load()), method, ast.Load())
        return ast.copy_location(ast.Call(hook, [ast.Constant(first), value], []), value)


@dataclass(frozen=True, slots=True)
class _Rewritten:
    module: ModuleType
    points: tuple[Point, ...]
    codes: dict[str, CodeType]


@cache
def _rewritten(name: str) -> _Rewritten:
    module = importlib.import_module(f"msrcache.cache.{name}")
    rewrite = _Rewrite(name)
    tree = ast.fix_missing_locations(rewrite.visit(ast.parse(inspect.getsource(module))))
    code = compile(tree, str(module.__file__), "exec")
    return _Rewritten(module, tuple(rewrite.points), {found.co_qualname: found for found in _codes(code)})


def _codes(code: CodeType) -> Iterator[CodeType]:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield const
            yield from _codes(const)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for value in list(vars(module).values()):
        members = list(vars(value).values()) if isinstance(value, type) else [value]
        for member in members:
            function = inspect.unwrap(member) if callable(member) else member
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function


def points(name: str) -> tuple[Point, ...]:
    """The points of msrcache.cache.<name>, in the order of its source."""
    return _rewritten(name).points


class Trap:
    """Springs once, at a passage of its point: `error` is raised there, None cancels the task that passes.

    An error stands in the place of what was awaited, but `behind` it where leaving it out would be a fault of the
    trap's own: what is under way already, and cleaning up. `spares` are coroutines whose task nobody cancels.
    """

    def __init__(
        self,
        point: Point,
        error: Exception | None,
        *,
        passage: int = 1,
        behind: bool,
        spares: frozenset[str] = frozenset(),
    ) -> None:
        self.sprung = False
        self._point = point
        self._error = error
        self._passages = passage
        self._behind = behind or point.kind == "exit"
        self._spares = spares

    def __repr__(self) -> str:
        return f"<Trap {self._point} {self._error!r}{' sprung' if self.sprung else ''}>"

    def set(self, patch: pytest.MonkeyPatch) -> None:
        """Instrument the point's module until the patch is undone."""
        found = _rewritten(self._point.module)
        patch.setattr(found.module, HOOK, self, raising=False)
        for function in _functions(found.module):
            if function.__qualname__ in found.codes:
                patch.setattr(function, "__code__", found.codes[function.__qualname__])

    async def awaited(self, number: int, awaited: Awaitable[T]) -> T:
        """`await awaited`."""
        return await self.passed(number, lambda: awaited)

    def managed(self, number: int, manager: AbstractAsyncContextManager[T]) -> "_Managed[T]":
        """`async with manager`; leaving it has the next number."""
        return _Managed(self, number, manager)

    def iterated(self, number: int, items: AsyncIterable[T]) -> "_Iterated[T]":
        """`async for … in items`."""
        return _Iterated(self, number, aiter(items))

    async def passed(self, number: int, start: Callable[[], Awaitable[T]]) -> T:
        """What is awaited, if the trap does not spring first."""
        task = asyncio.current_task()
        assert task is not None
        if number != self._point.number or self.sprung or _runs(task) in self._spares:
            return await start()
        self._passages -= 1
        if self._passages:
            return await start()
        self.sprung = True
        if self._error is None:
            task.cancel()
            return await start()
        awaited = start() if self._point.kind != "next" else None
        if self._behind or isinstance(awaited, asyncio.Future):
            assert awaited is not None
            await awaited
        elif inspect.iscoroutine(awaited):
            awaited.close()
        raise self._error


def _runs(task: "asyncio.Task[object]") -> str:
    return str(getattr(task.get_coro(), "__qualname__", ""))


class _Managed(Generic[T]):
    def __init__(self, trap: Trap, number: int, manager: AbstractAsyncContextManager[T]) -> None:
        self._trap = trap
        self._number = number
        self._manager = manager

    async def __aenter__(self) -> T:
        return await self._trap.passed(self._number, self._manager.__aenter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        def leave() -> Awaitable[bool | None]:
            return self._manager.__aexit__(kind, error, trace)

        return await self._trap.passed(self._number + 1, leave)


class _Iterated(Generic[T]):
    def __init__(self, trap: Trap, number: int, iterator: AsyncIterator[T]) -> None:
        self._trap = trap
        self._number = number
        self._iterator = iterator

    def __aiter__(self) -> "_Iterated[T]":
        return self

    async def __anext__(self) -> T:
        return await self._trap.passed(self._number, lambda: anext(self._iterator))
