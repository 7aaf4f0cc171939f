"""Checks passwords against bcrypt hashes: off the event loop, a few at a time, in a bounded queue."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import bcrypt

from msrcache.oci.errors import TooManyRequests

_SIGNIFICANT = (
    72  # bcrypt looks at so many bytes, as htpasswd and Docker Registry do; the library refuses more
)


class Passwords:
    """The pool; bcrypt releases the interpreter's lock, so `threads` checks really run at once."""

    def __init__(self, *, threads: int = 2, queue: int = 128) -> None:
        self._threads = threads
        self._queue = queue
        self._waiting = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="password")

    def __repr__(self) -> str:
        return f"<Passwords [{self._waiting} checks]>"

    async def check(self, password: bytes, hashed: bytes) -> bool:
        """Whether the hash is of this password. Raises TooManyRequests when the queue is full."""
        if self._waiting >= self._queue:
            raise TooManyRequests(2.0, "too many passwords are being checked: try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _matches, password, hashed)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Take no more; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_SIGNIFICANT], hashed)
    except ValueError:  # a password with a zero byte, which no hash has
        return False
