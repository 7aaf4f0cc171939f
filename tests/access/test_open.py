"""Promises of access.open: everybody, with the cache's own right."""

from msrcache.access.gate import Gate
from msrcache.access.open import OpenGate
from msrcache.oci.registry import SERVICE
from tests.access.upstream import blob, caller


async def test_everybody_reads_what_the_service_account_reads() -> None:
    """No credential is wanted, and one that is sent goes nowhere."""
    gate: Gate = OpenGate()
    await gate.ping(caller())
    assert await gate.admit(caller("Bearer secret"), blob()) is SERVICE
    assert gate.identity(caller("Bearer secret")) == "-"
    await OpenGate().close()
