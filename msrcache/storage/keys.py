"""What a key is: segments of [A-Za-z0-9._-], joined by slashes; nothing that a file system would read otherwise."""

import re
from typing import Final

from msrcache.storage.errors import KeyInvalid

LONGEST: Final = 900
"""Bytes; services allow 1,024 with the operator's rootdirectory before it."""
LONGEST_SEGMENT: Final = 255
"""Bytes; what file systems allow."""

_KEY: Final = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")


def is_key(text: str) -> bool:
    """Whether objects may stand there (pure)."""
    if len(text) > LONGEST or not _KEY.fullmatch(text):
        return False
    return all(part not in (".", "..") and len(part) <= LONGEST_SEGMENT for part in text.split("/"))


def check_key(driver: str, key: str) -> None:
    """Raises KeyInvalid."""
    if not is_key(key):
        raise KeyInvalid(driver, key[:LONGEST], None, "not a key; segments are [A-Za-z0-9._-], not . or ..")


def check_prefix(driver: str, prefix: str) -> str:
    """The prefix without the slash that may end it; empty is everything. Raises KeyInvalid."""
    bare = prefix.removesuffix("/")
    if bare or prefix:
        check_key(driver, bare)
    return bare
