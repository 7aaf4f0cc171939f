"""Reading and writing the units of config.yml: durations, sizes, whole numbers, booleans.

Pure functions over text; each raises ValueError with a sentence that says what would be right and never shows
the value (the caller knows whether it is a secret). They know no YAML, no key and no pydantic.
"""

import re
from typing import Final

_NANO: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_TERM: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE: Final = re.compile(r"[0-9]{1,19}")
_SIZE: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,6}))? ?([kKMGTP]i?B?|B)?")
_FACTORS: Final = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_TRUE: Final = frozenset({"y", "yes", "true", "on"})
_FALSE: Final = frozenset({"n", "no", "false", "off"})

LONGEST: Final = 2**63 - 1
"""The longest duration in nanoseconds and the largest whole number: what Go's types hold."""


def parse_flag(text: str) -> bool:
    """A boolean in any spelling of YAML 1.1."""
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("should be true or false")


def parse_whole(text: str) -> int:
    """A whole number of zero or more, in decimal digits only."""
    if re.fullmatch(r"0[0-9]+", text):
        raise ValueError("should be a decimal number without leading zeros (YAML 1.1 reads those as octal)")
    if re.fullmatch(r"[0-9]+(:[0-9]+)+", text):
        raise ValueError("should be a decimal number (YAML 1.1 reads a:b as a number to base 60)")
    if not _WHOLE.fullmatch(text) or int(text) > LONGEST:
        raise ValueError("should be a whole number of 0 or more, in decimal digits")
    return int(text)


def parse_duration(text: str) -> float:
    """Seconds from a Go duration such as 90s, 1h30m or 1.5h; a bare integer is nanoseconds, as in Go."""
    if text.isascii() and text.isdigit():
        return _seconds(parse_whole(text))
    if text.startswith("-"):
        raise ValueError("should not be negative: a duration such as 300ms, 10s, 5m or 1h30m")
    total, end = 0.0, 0
    while term := _TERM.match(text, end):
        total += float(term[1]) * _NANO[term[2]]
        end = term.end()
    if end == 0 or end != len(text):
        raise ValueError("should be a duration such as 300ms, 10s, 5m or 1h30m")
    return _seconds(total)


def _seconds(nanoseconds: float) -> float:
    if nanoseconds > LONGEST:
        raise ValueError("should be shorter than 292 years")
    return nanoseconds / 10**9


def parse_size(text: str) -> int:
    """Bytes: bare, or with kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024)."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("should be a size such as 1048576, 512MB or 10GiB")
    whole, fraction, unit = found[1], found[2] or "", found[3] or "B"
    if fraction and unit == "B":
        raise ValueError("should be a whole number of bytes, or carry a unit such as MiB")
    step = 1024 if "i" in unit else 1000
    factor = step ** _FACTORS[unit[0].upper()] if unit != "B" else 1
    size: int = int(whole + fraction) * factor // 10 ** len(fraction)
    if size > LONGEST:
        raise ValueError("should be smaller than 8 EiB")
    return size


def format_duration(seconds: float) -> str:
    """The shortest text that parse_duration reads as these seconds (to the nanosecond)."""
    rest = round(seconds * 10**9)
    if rest == 0:
        return "0s"
    if rest % 10**9:
        unit = next(unit for unit in ("ms", "us", "ns") if rest % _NANO[unit] == 0)
        return f"{rest // _NANO[unit]}{unit}"
    parts = []
    for unit in ("h", "m", "s"):
        count, rest = divmod(rest, _NANO[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_size(size: int) -> str:
    """The size in the largest binary unit that divides it; parse_size reads it back exactly."""
    for unit, power in (("TiB", 4), ("GiB", 3), ("MiB", 2), ("KiB", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)
