"""Flights share results and outages, never a refusal."""

import asyncio

import pytest

from msrcache.cache.flight import Flights
from msrcache.oci.errors import Denied


async def test_a_refusal_just_landed_is_not_met_again_for_ever() -> None:
    """Whoever comes between a refused flight's end and its callbacks flies for itself, and the loop goes on."""
    flights: Flights[str, int] = Flights()
    late: list[asyncio.Task[object]] = []

    async def one() -> int:
        return 1

    async def refused() -> int:
        late.append(asyncio.create_task(flights.fly("k", one)))
        raise Denied("not you")

    with pytest.raises(Denied):
        await flights.fly("k", refused)
    (landed,) = await asyncio.gather(*late)
    assert "k" not in flights
    assert getattr(landed, "result", None) == 1
