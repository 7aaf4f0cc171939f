"""Each clause of the contract notices a driver that breaks just its promise."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msrcache.storage.errors import StorageError
from tests.contract import sabotage_reading, sabotage_writing
from tests.contract.clauses import CLAUSES, DriverContract
from tests.contract.harness import Spooler
from tests.contract.sabotage import SABOTEURS, Honest, SabotagedHarness

NOTICES = (AssertionError, StorageError, pytest.fail.Exception)
"""How a clause says no. Anything else is a saboteur that does not work."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes the files that writers are given."""
    spooler = Spooler(tmp_path)
    yield spooler
    spooler.close()


async def hold(clause: str, saboteur: type[Honest], spool: Spooler) -> None:
    """Hold a driver to one clause."""
    harness = SabotagedHarness(saboteur)
    given: dict[str, Any] = {
        "here": harness.driver(),
        "there": harness.driver(),
        "spool": spool,
        "harness": harness,
    }
    method = getattr(DriverContract(), clause)
    await method(**{name: given[name] for name in inspect.signature(method).parameters})


def test_every_clause_has_its_saboteur() -> None:
    """No clause without a proof that it bites, and no saboteur without a clause."""
    assert sabotage_reading.__doc__
    assert sabotage_writing.__doc__
    assert sorted(SABOTEURS) == CLAUSES
    assert len(CLAUSES) >= 40


@pytest.mark.parametrize("clause", CLAUSES)
async def test_the_clause_bites(clause: str, spool: Spooler) -> None:
    """The sabotaged driver fails the clause."""
    with pytest.raises(NOTICES):
        await hold(clause, SABOTEURS[clause], spool)


@pytest.mark.parametrize("clause", CLAUSES)
async def test_the_clause_passes_an_honest_wrapper(clause: str, spool: Spooler) -> None:
    """The same driver without sabotage passes: it is the sabotage that was noticed."""
    await hold(clause, Honest, spool)
