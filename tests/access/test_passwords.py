"""Promises of access.passwords: bcrypt as htpasswd means it, off the loop, in a bounded queue."""

import asyncio
import threading

import bcrypt
import pytest

from msrcache.access import passwords
from msrcache.access.passwords import Passwords
from msrcache.oci.errors import TooManyRequests


def hashed(password: bytes) -> bytes:
    """A cheap hash."""
    return bcrypt.hashpw(password, bcrypt.gensalt(4))


async def test_right_and_wrong() -> None:
    """In both spellings of the same algorithm."""
    checks = Passwords()
    entry = hashed(b"sesame")
    assert await checks.check(b"sesame", entry)
    assert await checks.check(b"sesame", entry.replace(b"$2b", b"$2y"))
    assert not await checks.check(b"Sesame", entry)
    assert not await checks.check(b"", entry)
    checks.close()


async def test_only_the_first_72_bytes_count() -> None:
    """As for htpasswd and Docker Registry; longer ones are no error."""
    checks = Passwords()
    entry = hashed(b"x" * 72)
    assert await checks.check(b"x" * 100, entry)
    assert not await checks.check(b"x" * 71, entry)
    checks.close()


async def test_a_zero_byte_is_a_wrong_password() -> None:
    """And no error."""
    checks = Passwords()
    assert not await checks.check(b"ses\0ame", hashed(b"sesame"))
    checks.close()


async def test_the_queue_is_bounded_and_the_loop_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pool busy and the queue full the next one is told to come back; the loop goes on meanwhile."""
    go = threading.Event()
    monkeypatch.setattr(passwords, "_matches", lambda *_: go.wait(30))
    checks = Passwords(threads=1, queue=2)
    waiting = [asyncio.create_task(checks.check(b"a", b"b")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyRequests):
        await checks.check(b"a", b"b")
    go.set()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await checks.check(b"a", b"b")
    checks.close()
