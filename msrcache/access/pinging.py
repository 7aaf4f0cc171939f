"""`GET /v2/` without a credential: the upstream's challenge, remembered.

Every client begins with this question, and its answer leads to the upstream's token service, so it is
remembered: for `kept` seconds, and longer while the upstream cannot be asked. The challenge is passed on
verbatim, its realm untouched. It is the cache's own question, of no caller: no limit of an address applies
to it.
"""

from dataclasses import dataclass, field

from msrcache.access.questions import Questions, answer_of
from msrcache.oci.errors import Unauthorized, UpstreamBroken, UpstreamUnavailable
from msrcache.oci.names import Repository
from msrcache.oci.pulls import Ping, Pull
from msrcache.oci.registry import Credential, Registry
from msrcache.telemetry.clock import Clock

AGAIN = 10.0
"""Seconds between questions while the upstream cannot be asked."""


@dataclass(frozen=True, slots=True)
class Anonymous:
    """The right of somebody without a credential; implements Right, and is put to no decision."""

    credential: Credential = field(default_factory=Credential)
    graced: bool = False

    async def ask(self, pull: Pull, *, unreachable: bool = False) -> bool:
        """Nothing is decided by it: it is only ever put to the upstream."""
        return False

    def granted(self, repository: Repository) -> None:
        """Nothing is remembered."""


@dataclass(frozen=True, slots=True)
class _Welcome:
    """What the upstream answered; no refusal means that it asks for no credential."""

    challenges: tuple[str, ...] = ()
    message: str = ""
    detail: object = None
    refused: bool = False


class AnonymousPing:
    """Answers pings without a credential; times in seconds."""

    def __init__(
        self, *, upstream: Registry, clock: Clock, kept: float = 600.0, patience: float = 3.0
    ) -> None:
        """`patience`: how long an outdated answer is held back for a new one."""
        self._upstream = upstream
        self._clock = clock
        self._kept = kept
        self._patience = patience
        self._welcome: _Welcome | None = None
        self._until = 0.0
        self._questions: Questions[str, _Welcome] = Questions()

    async def answer(self) -> None:
        """Return where the upstream asks for no credential; raises Unauthorized with its challenge.

        Raises UpstreamUnavailable when it cannot be asked and never could.
        """
        welcome = self._welcome
        if welcome is None or self._clock.monotonic() >= self._until:
            welcome = await self._ask(welcome)
        if welcome.refused:
            # A new error each time: one that is raised again and again grows by its tracebacks.
            raise Unauthorized(welcome.message, welcome.challenges, detail=welcome.detail)

    async def close(self) -> None:
        """Stop the question under way."""
        await self._questions.close()

    async def _ask(self, old: _Welcome | None) -> _Welcome:
        question = self._questions.under_way("") or self._questions.put("", self._question)
        try:
            return await answer_of(question, patience=None if old is None else self._patience)
        except (UpstreamUnavailable, TimeoutError):
            if old is None:
                raise
            self._until = max(self._until, self._clock.monotonic() + AGAIN)
            return old

    async def _question(self) -> _Welcome:
        try:
            answer = await self._upstream.relay(Ping(right=Anonymous()))
        except Unauthorized as refusal:
            welcome = _Welcome(refusal.challenges, refusal.message, refusal.detail, refused=True)
        else:
            if not 200 <= answer.status < 300:
                raise UpstreamBroken(f"the upstream answered GET /v2/ with status {answer.status}")
            welcome = _Welcome()
        self._welcome = welcome
        self._until = self._clock.monotonic() + self._kept
        return welcome
