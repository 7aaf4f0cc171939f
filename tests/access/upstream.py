"""An upstream for tests of access: says yes, no or nothing, counts what it was asked, and can be held."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from msrcache.access.asking import AskingGate
from msrcache.access.buckets import Buckets
from msrcache.access.caller import Caller, Fingerprints
from msrcache.access.limited import Limited
from msrcache.access.pinging import AnonymousPing
from msrcache.access.verdicts import Verdicts
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository, Tag
from msrcache.oci.pulls import BlobPull, ManifestPull, Ping, Pull, Relayed
from msrcache.oci.ranges import Span
from msrcache.oci.registry import Answer, Blob, Credential, Manifest, Outcome, Resolution
from msrcache.telemetry.metrics import Metrics
from tests.stage.clock import FakeClock

APP = Repository.parse("team/app")
OTHER = Repository.parse("team/other")
ONE, TWO = Digest.of(b"one"), Digest.of(b"two")
CHALLENGE = 'Bearer realm="https://msr.example/auth/token",service="msr.example"'
_DESCRIPTOR = Descriptor("application/octet-stream", ONE, 3)


class AskedUpstream:
    """Answers yes unless `refuse` gives an error for the pull; while `hold()` is on, questions wait."""

    def __init__(self) -> None:
        self.ledger: list[str] = []
        self.refuse: Callable[[Pull], Exception | None] = lambda _: None
        self.relayed = Answer(200, {}, b"{}")
        self._go = asyncio.Event()
        self._go.set()
        self._arrived = asyncio.Condition()

    def hold(self) -> None:
        """Let questions wait until release()."""
        self._go.clear()

    def release(self) -> None:
        """Answer all that wait."""
        self._go.set()

    async def asked(self, count: int) -> None:
        """Return when `count` questions have arrived in all."""
        async with asyncio.timeout(30), self._arrived:
            await self._arrived.wait_for(lambda: len(self.ledger) >= count)

    async def _question(self, pull: Pull) -> None:
        credential = pull.right.credential
        what = pull.kind
        if isinstance(pull, BlobPull):
            what += f" {pull.repository} {'one' if pull.digest == ONE else 'two'}"
        elif isinstance(pull, ManifestPull):
            what += f" {pull.repository} {pull.reference}"
        self.ledger.append(f"{what} as {credential.header if credential else 'service'}")
        async with self._arrived:
            self._arrived.notify_all()
        await self._go.wait()
        if (error := self.refuse(pull)) is not None:
            raise error

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        assert pull.head
        assert not (isinstance(pull, BlobPull) and pull.range)
        await self._question(pull)
        return Resolution(_DESCRIPTOR, Outcome.PASS)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        await self._question(pull)
        return Manifest(_DESCRIPTOR, b"one", Outcome.PASS)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        await self._question(pull)
        yield Blob(_DESCRIPTOR, Span.whole(3), Outcome.PASS, _three())

    async def relay(self, pull: Relayed) -> Answer:
        await self._question(pull)
        return self.relayed


async def _three() -> AsyncIterator[bytes]:
    yield b"one"


class House:
    """A gate as assembly builds it, over an AskedUpstream, with a clock to turn."""

    def __init__(self, *, per_minute: float = 0, slots: int = 64, patience: float = 0.0) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.upstream = AskedUpstream()
        self.refusals = Buckets(clock=self.clock, burst=per_minute)
        self.limited = Limited(self.upstream, refusals=self.refusals, slots=slots)
        self.verdicts = Verdicts(clock=self.clock, ttl=60, grace=300)
        self.pings = AnonymousPing(upstream=self.limited, clock=self.clock, patience=patience)
        self.gate = AskingGate(
            upstream=self.limited,
            verdicts=self.verdicts,
            fingerprints=Fingerprints(),
            pings=self.pings,
            metrics=self.metrics,
            patience=patience,
        )

    async def ask(
        self, pull: Pull, header: str = "", *, address: str = "10.0.0.1", away: bool = False
    ) -> bool:
        """One request's question, from admission on."""
        right = await self.gate.admit(caller(header, address=address), pull)
        return await right.ask(pull.by(right), unreachable=away)

    def verdict(self, name: str) -> float:
        """How often the verdict was counted."""
        return self.metrics.registry.get_sample_value("msrcache_verdicts_total", {"verdict": name}) or 0.0


def caller(header: str = "", *, address: str = "10.0.0.1") -> Caller:
    """A caller with this Authorization header."""
    return Caller(Credential(header), address, "request-1", "https", "cache.example")


def blob(digest: Digest = ONE, repository: Repository = APP) -> BlobPull:
    """A pull of a blob."""
    return BlobPull(repository=repository, digest=digest)


def tagged(tag: str = "latest", repository: Repository = APP) -> ManifestPull:
    """A pull of a tag."""
    return ManifestPull(repository=repository, reference=Tag.parse(tag))


def ping() -> Ping:
    """GET /v2/."""
    return Ping()


def jwt(**claims: object) -> str:
    """An Authorization header with an unsigned token of these claims."""
    return f"Bearer {_part({'alg': 'none'})}.{_part(claims)}.sig"


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
