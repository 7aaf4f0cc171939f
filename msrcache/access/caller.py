"""Who asks: what is known of a request's sender, told from others without keeping its credential.

Credentials are kept in no form but a keyed hash; the key is made anew by each process, or derived from
`http.secret` where there is one. A JWT is read without verifying it, and only ever to remember something
for a shorter time.
"""

import base64
import binascii
import hashlib
import json
import math
import secrets
from dataclasses import dataclass

from msrcache.oci.registry import Credential

ANONYMOUS = "anonymous"
_SHOWN = 12  # characters of a hash in logs: enough to follow one caller, too few to matter
_LARGEST_TOKEN = 64 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's sender; `scheme` and `host` are those that it used to reach us."""

    credential: Credential
    address: str
    request_id: str
    scheme: str
    host: str


class Fingerprints:
    """Names callers by a keyed hash of their credential."""

    __slots__ = ("_key",)

    def __init__(self, secret: str = "") -> None:
        material = secret.encode() if secret else secrets.token_bytes(32)
        self._key = hashlib.blake2b(material, digest_size=32, person=b"msrcache.caller").digest()

    def of(self, credential: Credential) -> str:
        """The caller's name in our memory; all who send no credential are one."""
        if not credential.header:
            return ANONYMOUS
        header = credential.header.encode("utf-8", "surrogateescape")
        return hashlib.blake2b(header, digest_size=16, key=self._key).hexdigest()

    def shown(self, credential: Credential) -> str:
        """The caller's name in logs: short, and "-" for nobody."""
        return self.of(credential)[:_SHOWN] if credential.header else "-"


def expiry_of(credential: Credential) -> float | None:
    """When a bearer token says that it ends, in seconds since the epoch; None where it says nothing readable.

    The token is not verified: whoever forges an early end only shortens what is remembered of itself.
    """
    scheme, _, token = credential.header.strip().partition(" ")
    if scheme.lower() != "bearer" or len(token) > _LARGEST_TOKEN:
        return None
    parts = token.strip().split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    end = claims.get("exp") if isinstance(claims, dict) else None
    if isinstance(end, bool) or not isinstance(end, int | float):
        return None
    try:
        seconds = float(end)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None
