"""How a fill may end, and what those who read it are told then. Pure."""

import asyncio
from enum import StrEnum

from msrcache.cache.pump import WriteFailed
from msrcache.cache.spool import SpoolFull
from msrcache.cache.tail import Spilled
from msrcache.oci.digest import Hasher
from msrcache.oci.errors import Denied, RegistryError, Unauthorized, UpstreamUnavailable, is_refusal


class FillLeft(Exception):
    """The fill was stopped before its headers were known: open another."""


class FoundMeanwhile(Exception):
    """Another replica has stored the blob: it is a hit."""


class Ending(StrEnum):
    """How a fill ended; the metric's label."""

    COMPLETE = "complete"
    FOUND = "found"
    REFUSED = "refused"
    ABSENT = "absent"
    FAILED = "failed"
    CUT = "cut"
    LEFT = "left"


def ending_of(error: BaseException | None) -> Ending:
    """The ending that an error makes."""
    match error:
        case None:
            return Ending.COMPLETE
        case FoundMeanwhile():
            return Ending.FOUND
        case Unauthorized() | Denied():
            return Ending.REFUSED
        case UpstreamUnavailable():
            return Ending.FAILED
        case asyncio.CancelledError():
            return Ending.LEFT
        case RegistryError() if is_refusal(error):
            return Ending.ABSENT
        case _:
            return Ending.CUT


def tail_end(error: BaseException, *, written: int, hasher: Hasher) -> BaseException:
    """What the readers of a fill that ended so are told: go on by yourself, or be cut.

    A wrong digest or an upstream that is away would meet a reader of its own again; a full spool, the opener's
    ended credential or a fill that was stopped would not.
    """
    match error:
        case WriteFailed() | SpoolFull() | OSError() | Unauthorized() | Denied() | asyncio.CancelledError():
            return Spilled(written, hasher, error)
        case RegistryError():
            return error
        case _:
            return UpstreamUnavailable(f"the fill ended by an internal error: {type(error).__name__}")
