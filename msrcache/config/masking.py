"""What of a configuration must never be shown: which keys hold secrets, and values that look like one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

MASK: Final = "**********"

_SECRET_KEYS: Final = frozenset(
    {
        "password",
        "secret",
        "secretkey",
        "accesskey",
        "accesskeyid",
        "accesskeysecret",
        "accountkey",
        "connectionstring",
        "credentials",
        "tempurlkey",
        "token",
        "apikey",
        "licensekey",
        "authorization",
        "cookie",
        "setcookie",
        "proxyauthorization",
        "xapikey",
        "xauthtoken",
        "clientsecret",
        "privatekeydata",
        "sessiontoken",
        "sastoken",
    }
)
_USERINFO: Final = re.compile(r"(?<=//)\S*@")
_SIGNED: Final = re.compile(r"(?i)((?:signature|sig|token|secret|password|key)=)[^&\s]+")


def is_secret(path: Sequence[str | int]) -> bool:
    """Whether the value at a key path is a secret: by its own key, or as part of a block that is one."""
    names = [part.lower().replace("_", "").replace("-", "") for part in path if isinstance(part, str)]
    if not names or names[-1] == "passwordfile":
        return False
    return names[-1] in _SECRET_KEYS or "password" in names[-1] or "credentials" in names


def shown(value: str, path: Sequence[str | int]) -> str:
    """A value as it may stand in a message: masked where secret, on one line, at most 80 characters."""
    if is_secret(path) or "PRIVATE KEY" in value:
        return MASK
    text = _SIGNED.sub(rf"\g<1>{MASK}", _USERINFO.sub(f"{MASK}@", value))
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def masked(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    """A copy of a tree of maps, lists and text with every secret masked."""
    if isinstance(value, Mapping):
        return {key: masked(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, str) or not value:
        return value
    if is_secret(path) or "PRIVATE KEY" in value:
        return MASK
    return _SIGNED.sub(rf"\g<1>{MASK}", _USERINFO.sub(f"{MASK}@", value))
