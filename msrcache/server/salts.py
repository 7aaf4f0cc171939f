"""Which salts of signed requests were seen: what was overheard cannot be said again. Bounded memory, no clock.

Rules:
1. Salts are kept by scope: the nonce of a fill, or the kind of another request. Only a request with a right signature
   spends one, so nobody without the secret can push any out.
2. Beyond `each` in one scope its oldest is forgotten; beyond `total` the scope that was used longest ago is, but none
   that is in use (`kept`). The nonce of a fill is good only while it is under way, so what is forgotten is of no use.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

EACH: Final = 4096
TOTAL: Final = 1 << 16


class Salts:
    """The salts that were spent."""

    def __init__(self, *, each: int = EACH, total: int = TOTAL) -> None:
        self._each = each
        self._total = total
        self._count = 0
        self._scopes: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self._in_use: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Salts {self._count} in {len(self._scopes)} scopes>"

    def __len__(self) -> int:
        return self._count

    def spend(self, scope: str, salt: str) -> bool:
        """Take a salt; False where it was spent in this scope before."""
        salts = self._scopes.setdefault(scope, OrderedDict())
        self._scopes.move_to_end(scope)
        if salt in salts:
            return False
        salts[salt] = None
        self._count += 1
        if len(salts) > self._each:
            salts.popitem(last=False)
            self._count -= 1
        if self._count > self._total:
            self._make_room(scope)
        return True

    @contextmanager
    def kept(self, scope: str) -> Iterator[None]:
        """While this context is open, the scope is not forgotten."""
        self._in_use[scope] += 1
        try:
            yield
        finally:
            self._in_use[scope] -= 1
            if not self._in_use[scope]:
                del self._in_use[scope]

    def forget(self, scope: str) -> None:
        """The scope is of no use any more, whatever is said in it."""
        self._count -= len(self._scopes.pop(scope, ()))

    def _make_room(self, latest: str) -> None:
        while self._count > self._total:
            idle = (scope for scope in self._scopes if scope != latest and not self._in_use[scope])
            oldest = next(idle, None)
            if oldest is None:
                return  # as many as there are connections, each with its few
            self.forget(oldest)
