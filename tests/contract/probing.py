"""The clause of the product's own check: what `check-storage` says of a driver that keeps all the others."""

import secrets

from msrcache.storage.driver import Driver
from msrcache.storage.probe import Verdict, probe
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import SystemClock
from tests.contract.harness import Harness, keys

OF_ITS_OWN = {"neighbours"}
"""Proved by a clause of its own; versitygw now and then removes the folder that another request writes to."""


class ProbingClauses:
    """What an operator is told."""

    async def test_check_storage_finds_every_promise_kept(
        self, here: Driver, there: Driver, harness: Harness
    ) -> None:
        """Nothing is broken, denied or unknown; URLs are proved where there are some; nothing stays."""
        prefix = f"msrcache/probe/{secrets.token_hex(8)}"
        ledger = Ledger(SystemClock(), 30.0)
        report = await probe(here, there, PROMISES, prefix=prefix, ledger=ledger)
        unkept = {row.promise.name: row.said for row in report.rows if row.troubles}
        assert set(unkept) <= OF_ITS_OWN, unkept
        presign = next(row for row in report.rows if row.promise.name == "presign")
        assert (presign.verdict is Verdict.KEPT) == harness.presigns
        assert list(report.left) == []
        assert await keys(there.list("msrcache/probe")) == []
