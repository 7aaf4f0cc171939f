"""A store that is asked however sick it is: for the signs of life of a lease."""

import pytest

from msrcache.storage.breaker import Side
from msrcache.storage.errors import Unavailable
from tests.storage.test_store import Bench, lost


async def test_what_insists_is_asked_however_sick_the_store_is() -> None:
    """A beat goes out while the store is left alone, and is not repeated: the next one comes soon enough."""
    bench = Bench()
    bench.faults.fail("before", "put", *[lost()] * 100)
    while not bench.store._guard.leaves_alone(Side.WRITING):
        with pytest.raises(Unavailable):
            await bench.store.put("k", b"1")
    insistent, asked = bench.store.insistent(), bench.faults.seen.count("put")
    with pytest.raises(Unavailable):
        await insistent.put("k", b"1")
    assert bench.faults.seen.count("put") == asked + 1
    bench.faults.plans.clear()
    await insistent.put("k", b"2")
    assert await bench.store.get("k", 10) == b"2"
    await bench.store.close()
