"""How long to wait before the next attempt. Pure: time and chance are handed in.

Full jitter (a wait between nothing and twice the last bound): many replicas that lost one upstream together
must not come back to it together.
"""

import email.utils
from collections.abc import Callable
from datetime import UTC

Random = Callable[[], float]
"""Chance in [0, 1)."""

_LONGEST = 5.0


def jittered(first: float, attempt: int, random: Random) -> float:
    """Seconds before attempt 1, 2, …; at most `first`, then twice as much each time, never above 5."""
    bound = first * 2.0 ** min(attempt - 1, 16)
    return random() * min(bound, _LONGEST)


def parse_retry_after(text: str | None, now: float) -> float | None:
    """Seconds from now, by RFC 9110 10.2.3: a number or a date. None where it is missing or neither."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = email.utils.parsedate_to_datetime(text)
        at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - now)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
