"""How a replica proves to another that it has the fleet's secret; protocols, section 4. Both ends use this module.

A request is signed with HMAC-SHA256 over its method, its target (path and query as they stand on the wire), its
range, the digest of its body and a salt that the other end accepts once. No clock is involved.
Not here: which salts were seen (server), what is asked (server and upstream).
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "/peer/v1/"
"""Below it stands everything that replicas ask each other."""
SALT: Final = "X-Msrcache-Salt"
CONTENT: Final = "X-Msrcache-Content"
SIGNATURE: Final = "X-Msrcache-Signature"

_PURPOSE: Final = b"msrcache peer 1"  # the secret signs other things too
_SALT: Final = re.compile(r"[0-9a-f]{32}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A request as far as it is signed; `content` is the digest of its body."""

    method: str
    target: str
    range: str = ""
    content: str
    salt: str

    def headers(self, secret: bytes) -> dict[str, str]:
        """What the request carries so that the other end believes it."""
        told = {SALT: self.salt, CONTENT: self.content, SIGNATURE: sign(secret, self)}
        return told | ({"Range": self.range} if self.range else {})


def said(method: str, target: str, *, span: str = "", body: bytes = b"") -> Said:
    """A request of ours, with a salt of its own."""
    return Said(
        method=method, target=target, range=span, content=content_of(body), salt=secrets.token_hex(16)
    )


def content_of(body: bytes) -> str:
    """The digest of a body, as it is signed. Bodies are small: it is made where it is needed."""
    return hashlib.sha256(body).hexdigest()


def sign(secret: bytes, what: Said) -> str:
    """What proves that somebody with the secret said exactly this."""
    parts = (_PURPOSE, *map(_encoded, (what.method, what.target, what.range, what.content, what.salt)))
    # Each with its length before it: no two requests are the same bytes.
    return hmac.new(secret, b"".join(b"%d:%s" % (len(part), part) for part in parts), "sha256").hexdigest()


def is_signed(secret: bytes, what: Said, signature: str) -> bool:
    """Whether the signature is of this request; salt and content must be spelled as ours are. Never raises."""
    if not (_SALT.fullmatch(what.salt) and _HEX.fullmatch(what.content)):
        return False
    try:
        return hmac.compare_digest(_encoded(sign(secret, what)), _encoded(signature))
    except UnicodeEncodeError:  # nothing that came over a wire
        return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as an HTTP parser hands on what is no UTF-8
