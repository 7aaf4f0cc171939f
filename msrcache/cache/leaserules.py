"""The lease's rules: pure decisions, which the replicas run and the model test explores (protocols, section 3).

The records of one lease are rungs of a ladder, numbered from 0: each is missing, held by one arrival (its nonce; it
beats), or released. An arrival climbs from 0 until it holds a rung, follows who holds one, or finds the blob:

    CREATE --made--> PROVE --nothing there--------------> FETCH, holding
      | taken          |--blob--> CLEAR ----------------> FOUND
      v                `--rung above--> RELEASE --> READ one higher
    READ --held----> FOLLOW --a sign--> WAIT --> RETURN (look at the blob) --> READ
      |--held, and a rung is above it--> READ one higher
      |--held by who is gone, or released--> CREATE one higher
      `--missing--> LOOK (at the blob) --> CREATE

Rules:
1. Winning proves nothing about the blob, so the winner looks at it once more. That look carries the proof; looking at
   the rung above only saves work.
2. Who holds a rung is gone when the same nonce and beat stayed for the time to live on the observer's own clock, when
   its port refused the connection twice in a row, half a second apart, or when another process listens there. A fill
   that is not there, or a stream that broke, proves nothing.
3. A create whose reply was lost is settled by reading the rung back. A store that does not answer in time is left: the
   fill goes on without the lease, and what may have been written is looked at in the end.
4. An arrival that ends well deletes its rung and those below. One that failed deletes rung 0 while it is its own, and
   releases a higher one: deleted, it would leave newcomers to wait for a dead one below it.
5. Whoever wrote and then finds the blob deletes likewise. Rungs that a newer version wrote are held, and never deleted.
6. The beat is stopped, and its request awaited, before anything of an end is written.

Nothing is remembered from one arrival to the next, and each has a nonce of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Final

from msrcache.oci.peers import Sign

GONE: Final = 2
"""Doubts that a holder can't survive: refused connections in a row."""


class Act(StrEnum):
    """What an arrival does next."""

    CREATE = "create"
    PROVE = "prove"
    RELEASE = "release"
    READ = "read"
    LOOK = "look"
    RETURN = "return"
    CLEAR = "clear"
    WAIT = "wait"
    FETCH = "fetch"
    FOLLOW = "follow"
    FOUND = "found"


TURNS: Final = frozenset({Act.FETCH, Act.FOLLOW, Act.FOUND})
"""What the arrival's fill is told; everything else is between the arrival and the store."""


class Own(Enum):
    """Whether the rung is this arrival's own."""

    NO = 0
    UNSURE = 1  # a create that may have taken effect
    HELD = 2


class Rung(Enum):
    """What was read at a rung."""

    MISSING = 0
    RELEASED = 1
    HELD = 2
    OWN = 3  # held, with the nonce of whoever reads
    NEWER = 4  # of a version that is not known here: held


@dataclass(frozen=True, slots=True)
class Step:
    """Where an arrival stands: what it does next, and all that it remembers."""

    act: Act
    n: int = 0
    own: Own = Own.NO
    top: int = -1
    """The highest rung that it may have written."""
    floor: int = 0
    """Rungs below are not deleted."""
    holder: str = ""
    """The nonce of whom it follows, or followed last."""
    doubts: int = 0
    """What speaks against that one's life."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What doing it showed. `failed`: the store did not answer; unless `refused`, it may have been done even so."""

    failed: bool = False
    refused: bool = False
    made: bool = False
    blob: bool = False
    above: bool = False
    """Whether there is a rung one higher."""
    rung: Rung = Rung.MISSING
    nonce: str = ""
    expired: bool = False
    """Whether nonce and beat stayed for the time to live."""
    sign: Sign = Sign.BROKEN


FIRST: Final = Step(Act.CREATE)
"""Where every arrival begins."""


def after(step: Step, seen: Seen) -> Step:
    """The next step (pure)."""
    if seen.failed:
        return _unanswered(step, seen)
    return _AFTER[step.act](step, seen)


def _unanswered(step: Step, seen: Seen) -> Step:
    if step.act is Act.CREATE and not seen.refused:
        return replace(step, act=Act.READ, own=Own.UNSURE, top=max(step.top, step.n))
    if step.act is Act.CLEAR:
        return replace(step, act=Act.FOUND)
    own = Own.UNSURE if step.own is Own.HELD else step.own
    return replace(step, act=Act.FETCH, own=own)


def _created(step: Step, seen: Seen) -> Step:
    if not seen.made:
        return replace(step, act=Act.READ, own=Own.NO)
    return replace(step, act=Act.PROVE, own=Own.HELD, top=step.n)


def _proved(step: Step, seen: Seen) -> Step:
    if seen.blob:
        return _found(step)
    return replace(step, act=Act.RELEASE if seen.above else Act.FETCH)


def _released(step: Step, _seen: Seen) -> Step:
    return _higher(step, Act.READ)


def _read(step: Step, seen: Seen) -> Step:
    match seen.rung:
        case Rung.OWN:
            return replace(step, act=Act.PROVE, own=Own.HELD)
        case Rung.MISSING:
            return replace(step, act=Act.LOOK)
        case Rung.RELEASED:
            return _higher(step, Act.CREATE)
        case Rung.NEWER:
            return _held(replace(step, floor=step.n + 1), seen)
        case Rung.HELD:
            return _held(step, seen)


def _held(step: Step, seen: Seen) -> Step:
    if seen.above:
        return _higher(step, Act.READ)
    doubts = step.doubts if seen.nonce == step.holder else 0
    if seen.expired or doubts >= GONE:
        return _higher(step, Act.CREATE)
    return replace(step, act=Act.FOLLOW, own=Own.NO, holder=seen.nonce, doubts=doubts)


def _higher(step: Step, act: Act) -> Step:
    return replace(step, act=act, n=step.n + 1, own=Own.NO, holder="", doubts=0)


def _followed(step: Step, seen: Seen) -> Step:
    match seen.sign:
        case Sign.UNREACHED:
            doubts = step.doubts + 1
        case Sign.REPLACED:
            doubts = GONE
        case _:
            doubts = 0
    return replace(step, act=Act.RETURN if doubts >= GONE else Act.WAIT, doubts=min(doubts, GONE))


def _waited(step: Step, _seen: Seen) -> Step:
    return replace(step, act=Act.RETURN)


def _returned(step: Step, seen: Seen) -> Step:
    return _found(step) if seen.blob else replace(step, act=Act.READ)


def _looked(step: Step, seen: Seen) -> Step:
    return _found(step) if seen.blob else replace(step, act=Act.CREATE)


def _found(step: Step) -> Step:
    return replace(step, act=Act.CLEAR if step.top >= 0 else Act.FOUND)


def _cleared(step: Step, _seen: Seen) -> Step:
    return replace(step, act=Act.FOUND, own=Own.NO, top=-1)


_AFTER: Final[Mapping[Act, Callable[[Step, Seen], Step]]] = {
    Act.CREATE: _created,
    Act.PROVE: _proved,
    Act.RELEASE: _released,
    Act.READ: _read,
    Act.LOOK: _looked,
    Act.RETURN: _returned,
    Act.CLEAR: _cleared,
    Act.WAIT: _waited,
    Act.FOLLOW: _followed,
}


def lost(rung: Rung, *, above: bool) -> bool:
    """Whether a holder that read its own rung so holds it no more (pure)."""
    return rung is not Rung.OWN or above


class Last(StrEnum):
    """What ends an arrival's records."""

    CHECK = "check"  # read the own rung
    RELEASE = "release"
    LOOK = "look"
    CLEAR = "clear"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class End:
    """Where the end of an arrival stands. `delete`: its rung goes, where it is its own; else it is released."""

    last: Last
    n: int = 0
    floor: int = 0
    delete: bool = False


def ending(step: Step, *, well: bool, lost: bool = False) -> End:
    """How to end an arrival that stands there (pure). `well`: the blob is in the store; `lost`: its rung was lost."""
    if step.act in (Act.CLEAR, Act.FOUND):
        return _clear(step)
    lost = lost or step.act is Act.RELEASE
    delete = well or (step.n == 0 and not lost)
    unsure = step.act is Act.CREATE or step.own is Own.UNSURE
    if step.own is Own.NO and not unsure:
        return _clear(step) if well or step.top < 0 else End(Last.LOOK, step.top, step.floor)
    if delete and not unsure:
        return _clear(step)
    return End(Last.CHECK, step.n, step.floor, delete)


def _clear(step: Step) -> End:
    return End(Last.CLEAR if step.top >= 0 else Last.DONE, step.top, step.floor, delete=True)


def ended(end: End, seen: Seen) -> End:
    """The next step of an end (pure)."""
    match end.last:
        case Last.CHECK if seen.rung is Rung.OWN:
            return replace(end, last=Last.CLEAR if end.delete else Last.RELEASE)
        case Last.RELEASE:
            return replace(end, last=Last.LOOK)
        case Last.LOOK if seen.blob:
            return replace(end, last=Last.CLEAR)
    return replace(end, last=Last.DONE)
