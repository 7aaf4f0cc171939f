"""Signed URLs of Swift (TempURL): which key signs, by which digest, and the signature.

Rules:
1. Keys are those of the container or the account, as far as this user is shown them; they are looked at again after
   LOOKED seconds, so that a rotated key is used soon. A key that was configured is put there where none stands.
2. A user who is shown no keys signs with the configured one. Without any key there are no URLs.
3. No URL is given out before the service has honoured one: with each look, one is tried. Swift's proxies remember for
   a minute what they read of a container before its key was set, and copies of it may lag: so a key that was put by
   us, or just now by somebody else, is refused here and there for a while, and a client would be. A key that we put
   waits for SETTLING before it is tried, one that was refused for REFUSED; meanwhile there are no URLs.
4. A signature is made here; the service is asked only for what rules 1 and 3 need.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from msrcache.storage.errors import Denied, StorageError, Unavailable
from msrcache.storage.swiftclient import Request
from msrcache.storage.swiftcontainer import Container, Features
from msrcache.telemetry.logs import get_logger

LOOKED: Final = 600.0
"""Seconds for which the keys are remembered."""
SETTLING: Final = 60.0
"""Seconds after which all of the service knows a key that was put: for as long its proxies remember a container."""
REFUSED: Final = 15.0
"""Seconds after which keys that the service refused are looked at again."""
TRIED: Final = 60.0
"""Seconds for which the URL is good that is tried."""

SLOTS: Final = ("Temp-Url-Key", "Temp-Url-Key-2")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Signing:
    """How URLs are signed; an empty key: not at all."""

    key: str
    digest: str

    def __repr__(self) -> str:
        return f"<Signing by {self.digest if self.key else 'nothing'}>"


class Signer:
    """Signs for one container."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._signing: Signing | None = None
        self._again_at = 0.0
        self._settled_at = 0.0
        self._placed = False
        self._looking = asyncio.Lock()
        self._told = ""

    def __repr__(self) -> str:
        return f"<Signer {self._signing}>"

    async def url(self, key: str, ttl: float, endpoint: str) -> str | None:
        """A URL for GET of the key, or None. Raises StorageError where it is not known yet how to sign."""
        signing = await self._known(key)
        return await self._signed(signing, key, ttl, endpoint) if signing.key else None

    async def _signed(self, signing: Signing, key: str, ttl: float, endpoint: str = "") -> str:
        grant = self._container.client.tokens.last or await self._container.client.tokens.current()
        account = urlsplit(grant.url)
        path = f"{account.path}/{self._container.given.container}/{self._container.place(key)}"
        until = int(time.time() + max(1.0, ttl))
        signature = signed(signing, path, until)
        if access := self._container.given.accesskey:
            signature = f"{self._container.given.tenantid}:{access}:{signature}"
        query = urlencode({"temp_url_sig": signature, "temp_url_expires": until})
        base = endpoint.rstrip("/") or f"{account.scheme}://{account.netloc}"
        return f"{base}{quote(path)}?{query}"

    async def _known(self, key: str) -> Signing:
        if self._signing is None or _now() > self._again_at:
            async with self._looking:
                if self._signing is None or _now() > self._again_at:
                    await self._look(key)
        assert self._signing is not None
        return self._signing

    async def _look(self, key: str) -> None:
        """Find out how to sign; `key` is the object that a URL is tried on."""
        try:
            features = await self._container.features()
            digest = digest_of(features, self._container.given.tempurlmethods)
            candidates = await self._candidates() if digest else ()
            if _now() < self._settled_at:
                self._signing, self._again_at = Signing("", digest), self._settled_at
                return
            signing = await self._honoured([Signing(one, digest) for one in candidates], key)
        except Unavailable:
            if self._signing is None:
                raise
            return  # signed on as before, and looked at again with the next
        if not digest:
            self._tell("the service has no signed URLs (tempurl) for GET: all bytes flow through the cache")
        self._again_at = _now() + (LOOKED if signing or not candidates else REFUSED)
        self._signing = signing or Signing("", digest)

    async def _honoured(self, candidates: Sequence[Signing], key: str) -> Signing | None:
        """The first whose URL the service serves, be it with the news that nothing is there."""
        for signing in candidates:
            url = await self._signed(signing, key, TRIED)
            if await self._container.client.honours(url, key):
                self._told = ""
                return signing
        self._placed = False
        if candidates:
            self._tell(
                "the service refuses the URLs that are signed with the key: it is new or not there, a clock is off, or"
                " a proxy rewrites paths; until it honours them all bytes flow through the cache"
            )
        return None

    async def _candidates(self) -> Sequence[str]:
        """The keys to sign with, the best first."""
        given = self._container.given.secretkey
        seen = {account: await self._seen(account=account) for account in (False, True)}
        standing = [key for keys in seen.values() for key in (keys or {}).values() if key]
        if given in standing:
            return (given,)
        if not given:
            if not standing:
                self._tell(
                    "no key for signed URLs is shown to this user: set one on the container (Temp-URL-Key) or give"
                    " storage.swift.secretkey; until then all bytes flow through the cache"
                )
            return standing
        account = not self._container.given.tempurlcontainerkey
        keys = seen[account] or {}
        free = next((slot for slot in SLOTS if not keys.get(slot)), None)
        if free is None:
            self._tell(
                "storage.swift.secretkey is none of the two keys for signed URLs that stand there: correct it, or free"
                " one; until then all bytes flow through the cache"
            )
            return ()
        if not self._placed:  # some services show no keys to anybody: those who look again would wait again
            await self._put(free, given, account=account)
        return (given,)

    async def _seen(self, *, account: bool) -> Mapping[str, str] | None:
        """The keys that stand there, None where this user may not ask."""
        what = "account" if account else "container"
        request = Request(method="HEAD", operation=f"HEAD of the {what}", account=account)
        try:
            headers = (await self._container.client.ask(request)).headers
        except Denied:
            return None
        return {slot: headers.get(f"X-{what.capitalize()}-Meta-{slot}", "") for slot in SLOTS}

    async def _put(self, slot: str, key: str, *, account: bool) -> None:
        """Where this user may; else somebody has done it, or will."""
        what = "account" if account else "container"
        named = {f"X-{what.capitalize()}-Meta-{slot}": key}
        request = Request(method="POST", operation=f"POST of the {what}", account=account, headers=named)
        try:
            await self._container.client.ask(request)
        except Unavailable:
            raise
        except StorageError:
            return
        self._placed, self._settled_at = True, _now() + SETTLING
        log.info("the key for signed URLs was set", on=what, slot=slot, used_after_seconds=SETTLING)

    def _tell(self, text: str) -> None:
        """Once."""
        if text != self._told:
            self._told = text
            log.warning(text, container=self._container.given.container)


def _now() -> float:
    return asyncio.get_running_loop().time()


def digest_of(features: Features, configured: Sequence[str]) -> str:
    """The digest to sign with; empty where there are no URLs for GET (pure)."""
    methods = configured or features.methods
    if not features.tempurl or "GET" not in methods:
        return ""
    return next((name for name in ("sha256", "sha1", "sha512") if name in features.digests), "")


def signed(signing: Signing, path: str, until: int) -> str:
    """The signature of a GET (pure)."""
    return hmac.new(signing.key.encode(), f"GET\n{until}\n{path}".encode(), signing.digest).hexdigest()
