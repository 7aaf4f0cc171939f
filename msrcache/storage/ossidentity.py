"""Who we are towards OSS: an access key, or a role whose credentials end and are renewed.

Rules:
1. Without keys in the parameters, the first of these that there is: the environment's keys, a pod's role (RRSA: a
   token file that is given to the token service), a credentials URI, the RAM role of the machine.
2. Credentials that end are renewed EARLY, once however many wait for it. Where that fails, those that we have serve
   until they end.
3. What was refused, or could not be had, is looked for anew with the next request, at most once in PAUSE seconds: a new
   role, key or token works without a restart.
4. The SDK takes credentials without waiting, so they are here before it is asked to sign.

The SDK has classes for keys and for the environment only; the others are asked here, on the loop. Not here: signing
(`ossclient`).
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp

from msrcache.storage.errors import StorageError, Unavailable
from msrcache.storage.osserrors import NAME, CredentialsRefused
from msrcache.storage.ossparameters import OssParameters

METADATA: Final = "http://100.100.100.200"
"""Of the machine, by Alibaba Cloud."""
EARLY: Final = 300.0
"""Seconds before their end that credentials are renewed."""
PAUSE: Final = 5.0
"""Seconds after which what failed is tried again."""
PATIENCE: Final = 5.0
"""Seconds for all that one source is asked."""
SESSION: Final = "msrcache"
LARGEST: Final = 64 << 10
"""Bytes of an answer with credentials."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Nothing of them is ever shown."""

    id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)
    ends: float | None = None
    """Seconds since the epoch; None: they do not."""

    def last(self, seconds: float) -> bool:
        """Whether they are good for so long."""
        return self.ends is None or time.time() + seconds < self.ends


class Missing(Exception):
    """A source has no credentials; the text says why, without secrets."""


class Identity:
    """The credentials of one driver and its twins."""

    def __init__(self, given: OssParameters) -> None:
        self._given = given
        self._found: Credentials | None = None
        self._failed: StorageError | None = None
        self._asked = float("-inf")
        self._turn = asyncio.Lock()
        if given.accesskeyid:
            self._found = Credentials(given.accesskeyid, given.accesskeysecret, given.securitytoken)

    def __repr__(self) -> str:
        return f"<Identity {'known' if self._found else 'not known'}>"

    @property
    def now(self) -> Credentials:
        """Those that current() brought; of nobody where it brought none."""
        return self._found or Credentials("", "")

    async def current(self, key: str) -> Credentials:
        """Credentials that are good now. Raises StorageError."""
        if (found := self._found) is not None and found.last(EARLY):
            return found
        async with self._turn:
            if (found := self._found) is None or not found.last(EARLY):
                await self._renew(key)
        if (found := self._found) is None or not found.last(0.0):
            text = "the credentials have ended, or were refused; others are looked for every few seconds"
            raise self._failed or CredentialsRefused(NAME, key, None, text)
        return found

    def refused(self, shown: Credentials) -> None:
        """The service did not take these. Those of the parameters stay: there are no others."""
        if self._found is shown and not self._given.accesskeyid:
            self._found = None

    async def _renew(self, key: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._asked < PAUSE:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                self._found, self._failed = await self._look(), None
        except Missing as error:
            self._failed = CredentialsRefused(NAME, key, None, str(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = "no credentials: the service that gives them does not answer; give accesskeyid, or a role"
            self._failed = Unavailable(NAME, key, error if str(error) else None, text)
        self._asked = asyncio.get_running_loop().time()  # not where who asked has left: the next one asks

    async def _look(self) -> Credentials:
        """From the first source that there is. Raises Missing, and what its service does."""
        if self._given.ramrole:
            return await _of_machine(self._given.ramrole)
        if (found := _of_environment()) is not None:
            return found
        if all(name in os.environ for name in _POD):
            return await _of_pod(self._given.tokens)
        if uri := os.environ.get("ALIBABA_CLOUD_CREDENTIALS_URI"):
            return await _asking(lambda http: _at_uri(http, uri))
        return await _of_machine("")


_POD: Final = (
    "ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
)  # fmt: skip


def _of_environment() -> Credentials | None:
    for prefix, token in (("OSS", "OSS_SESSION_TOKEN"), ("ALIBABA_CLOUD", "ALIBABA_CLOUD_SECURITY_TOKEN")):
        key, secret = (os.environ.get(f"{prefix}_ACCESS_KEY_{part}") for part in ("ID", "SECRET"))
        if key and secret:
            return Credentials(key, secret, os.environ.get(token, ""))
    return None


async def _of_machine(role: str) -> Credentials:
    """The machine's RAM role, by the metadata service; with its token where it wants one."""
    return await _asking(lambda http: _at_metadata(http, role))


async def _at_metadata(http: aiohttp.ClientSession, role: str) -> Credentials:
    asked = {"X-aliyun-ecs-metadata-token-ttl-seconds": "60"}
    async with http.put(f"{METADATA}/latest/api/token", headers=asked) as answer:
        token = await _text(answer) if answer.status == 200 else ""
    shown = {"X-aliyun-ecs-metadata-token": token} if token else {}
    place = f"{METADATA}/latest/meta-data/ram/security-credentials/"
    if not role:
        async with http.get(place, headers=shown) as answer:
            if answer.status != 200:
                raise Missing(
                    "no credentials: give accesskeyid and accesskeysecret, or the machine a RAM role"
                )
            role = (await _text(answer)).strip()
    async with http.get(f"{place}{role}", headers=shown) as answer:
        if answer.status != 200:
            raise Missing(f"the machine has no RAM role {role}, says its metadata service ({answer.status})")
        return _read(await _text(answer), f"the RAM role {role}")


async def _of_pod(tokens: str) -> Credentials:
    """A pod's role, by the token that its file has now."""
    role, provider, path = (os.environ[name] for name in _POD)
    form = {
        "Action": "AssumeRoleWithOIDC",
        "Version": "2015-04-01",
        "Format": "JSON",
        "Timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "SignatureNonce": os.urandom(16).hex(),
        "RoleArn": role,
        "OIDCProviderArn": provider,
        "OIDCToken": (await asyncio.to_thread(Path(path).read_text)).strip(),
        "RoleSessionName": SESSION,
    }

    async def ask(http: aiohttp.ClientSession) -> Credentials:
        async with http.post(f"{tokens}/", data=form) as answer:
            text = await _text(answer)
            if answer.status != 200:
                code = str(_object(text).get("Code", answer.status))
                raise Missing(f"the token service at {tokens} refuses the role {role}: {code}")
        return _read(json.dumps(_object(text).get("Credentials")), f"the role {role}")

    return await _asking(ask)


async def _at_uri(http: aiohttp.ClientSession, uri: str) -> Credentials:
    async with http.get(uri) as answer:
        if answer.status != 200:
            raise Missing(f"the credentials URI answers {answer.status}")
        return _read(await _text(answer), "the credentials URI")


async def _asking(ask: Callable[[aiohttp.ClientSession], Awaitable[Credentials]]) -> Credentials:
    """Over connections of its own: no proxy stands between a machine and its metadata."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        return await ask(http)


async def _text(answer: aiohttp.ClientResponse) -> str:
    data = b""
    async for chunk in answer.content.iter_any():
        data += chunk
        if len(data) > LARGEST:
            raise Missing("what should be credentials has no end")
    return data.decode(errors="replace")


def _object(text: str) -> Mapping[str, Any]:
    """What JSON has; nothing where it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(text: str, source: str) -> Credentials:
    """What the services of Alibaba Cloud give, which is one form (pure). Raises Missing."""
    found = _object(text)
    key, secret = str(found.get("AccessKeyId", "")), str(found.get("AccessKeySecret", ""))
    if found.get("Code", "Success") != "Success" or not key or not secret:
        raise Missing(f"{source} gave no credentials: {found.get('Code', 'something else came')}")
    try:
        ends = datetime.fromisoformat(str(found["Expiration"])).timestamp() if "Expiration" in found else None
    except ValueError:
        raise Missing(f"{source} gave credentials whose end cannot be read") from None
    return Credentials(key, secret, str(found.get("SecurityToken", "")), ends)
