"""Keeps secrets out of logs: what a key names as secret, and what looks like a credential in any text.

A net below the trapeze: nobody should log a credential, and if somebody does, it is masked here. Challenges
(`Bearer realm="…"`) are no secrets and stay readable.
"""

import re
from collections.abc import Mapping

MASK = "***"

_SECRET_KEY = re.compile(
    r"authorization|passw|secret|token|cookie|credential|signature|(?:private|access|api|account)[-_]?key",
    re.IGNORECASE,
)
# Words that follow Bearer or Basic in sentences about them, not in headers.
_PROSE = r"auth|authentication|authorization|challenges?|credentials?|flow|scheme|token|tokens|upstream"
_SCHEME = re.compile(
    rf"\b(Bearer|Basic|Negotiate)([\s:]+)(?!(?:{_PROSE})(?![\w.~+/=-]))(?!\w+=\")[\w.~+/-]{{4,}}=*",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(://[^/\s:@?#]*:)[^/\s@?#]+@")
_PARAMETER = re.compile(
    r"((?:\b|_|-)(?:access_token|refresh_token|id_token|token|password|passwd|secret|client_secret|signature|sig|jwt"
    r"|x-[a-z]+-(?:signature|credential|security-token)|ossaccesskeyid|awsaccesskeyid|googleaccessid)=)[^&\s\"',;]+",
    re.IGNORECASE,
)
_JSON_FIELD = re.compile(r"(\"[\w.-]*(?:token|password|secret)[\w.-]*\"\s*:\s*\")[^\"]*", re.IGNORECASE)
_DEEPEST = 6


def redact_text(text: str) -> str:
    """`text` with credentials masked: authorization values, passwords in URLs, signatures, tokens."""
    text = _SCHEME.sub(rf"\1\2{MASK}", text)
    if "://" in text:
        text = _USERINFO.sub(rf"\1{MASK}@", text)
    if "=" in text:
        text = _PARAMETER.sub(rf"\1{MASK}", text)
    if '"' in text:
        text = _JSON_FIELD.sub(rf"\1{MASK}", text)
    return text


def redact(key: str, value: object, depth: int = 0) -> object:
    """`value` as it may be logged under `key`; numbers pass, since a count of tokens is no token."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_KEY.search(key):
        return MASK if value else value
    if isinstance(value, str):
        return redact_text(value)
    if depth >= _DEEPEST:
        return redact_text(repr(value))
    if isinstance(value, Mapping):
        return {str(name): redact(str(name), inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact("", inner, depth + 1) for inner in value]
    return redact_text(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
