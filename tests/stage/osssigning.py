"""How OSS checks a request that is signed with V4, in its header or in its query: our reading of the documentation.

Refusals are the service's own codes. Held against both official SDKs by tests/stage/test_oss.py.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

ALGORITHM = "OSS4-HMAC-SHA256"
SKEW = 900.0
"""Seconds that a request's time may be off."""


@dataclass(slots=True)
class Account:
    """Who may sign. With a token these are credentials of a role."""

    secret: str
    token: str = ""
    allowed: set[str] | None = None
    """Actions, as policies name them; None: all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came; path and query decoded: clients differ in what they leave unquoted."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]

    def told(self, name: str) -> str:
        """A query parameter."""
        return next((value for key, value in self.query if key == name), "")


class RefusedError(Exception):
    """The code, and what is said with it."""

    def __init__(self, code: str, message: str, status: int = 403) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class _Signature:
    credential: str
    signature: str
    date: str
    token: str
    additional: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    expires: float | None


def verify(asked: Asked, accounts: Mapping[str, Account], *, region: str, now: float) -> Account:
    """Whose request it is. Raises RefusedError."""
    found = _of_header(asked) or _of_query(asked)
    if found is None:
        raise RefusedError("AccessDenied", "Anonymous user has no right to access this bucket.")
    key, _, scope = found.credential.partition("/")
    if key not in accounts:
        raise RefusedError(
            "InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist in our records."
        )
    account = accounts[key]
    if found.token != account.token:
        raise RefusedError("InvalidSecurityToken", "The security token you provided is invalid.")
    if scope != f"{found.date[:8]}/{region}/oss/aliyun_v4_request":
        raise RefusedError("InvalidArgument", "Invalid signing region in Authorization header.", 400)
    _in_time(found, now)
    if not hmac.compare_digest(_signed(asked, found, account.secret, scope), found.signature):
        raise RefusedError(
            "SignatureDoesNotMatch", "The request signature we calculated does not match yours."
        )
    return account


def _of_header(asked: Asked) -> _Signature | None:
    text = asked.headers.get("authorization", "")
    if not text.startswith(f"{ALGORITHM} "):
        return None
    fields = dict(part.strip().split("=", 1) for part in text.removeprefix(ALGORITHM).split(","))
    return _Signature(
        fields["Credential"],
        fields["Signature"],
        asked.headers.get("x-oss-date", ""),
        asked.headers.get("x-oss-security-token", ""),
        tuple(filter(None, fields.get("AdditionalHeaders", "").split(";"))),
        asked.query,
        None,
    )


def _of_query(asked: Asked) -> _Signature | None:
    if asked.told("x-oss-signature-version") != ALGORITHM:
        return None
    return _Signature(
        asked.told("x-oss-credential"),
        asked.told("x-oss-signature"),
        asked.told("x-oss-date"),
        asked.told("x-oss-security-token"),
        tuple(filter(None, asked.told("x-oss-additional-headers").split(";"))),
        tuple(pair for pair in asked.query if pair[0] != "x-oss-signature"),
        float(asked.told("x-oss-expires")),
    )


def _in_time(found: _Signature, now: float) -> None:
    signed = datetime.strptime(found.date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    if found.expires is not None:
        if now > signed + found.expires:
            raise RefusedError("AccessDenied", "Request has expired.")
    elif abs(now - signed) > SKEW:
        raise RefusedError(
            "RequestTimeTooSkewed", "The difference between request time and ours is too large."
        )


def _signed(asked: Asked, found: _Signature, secret: str, scope: str) -> str:
    canonical = "\n".join(
        (
            asked.method,
            quote(asked.path, safe="/"),
            "&".join(sorted(_quoted(name, value) for name, value in found.query)),
            "".join(f"{name}:{value.strip()}\n" for name, value in sorted(_counted(asked, found.additional))),
            ";".join(found.additional),
            asked.headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        )
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"aliyun_v4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    text = f"{ALGORITHM}\n{found.date}\n{scope}\n{digest}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _quoted(name: str, value: str) -> str:
    return f"{quote(name, safe='')}={quote(value, safe='')}" if value else quote(name, safe="")


def _counted(asked: Asked, additional: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """The headers that are part of the signature."""
    for name, value in asked.headers.items():
        if name in ("content-type", "content-md5") or name.startswith("x-oss-") or name in additional:
            yield name, value
