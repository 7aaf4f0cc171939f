"""Mode `upstream`, the default: the upstream decides who reads what, asked with the caller's own credential.

Rules:
1. A yes is remembered per caller and repository (verdicts); while it is fresh nothing is asked.
2. Else the question is put: a HEAD of the very content, or the relayed request itself. A no goes to the
   caller exactly as it came and is not remembered; it removes what was remembered.
3. Equal questions at once are asked once. One caller's questions about one repository wait for the first of
   them: its yes is theirs too; after its no each asks for its own content, since that no may be about the
   content.
4. Only while the upstream cannot be asked (or has not answered for `patience`) a yes within grace counts;
   otherwise the caller gets the outage as it is, with Retry-After.
5. No answer to one caller is ever another's, and nothing here depends on what the cache holds.
"""

import asyncio
from dataclasses import replace
from typing import assert_never

from msrcache.access.caller import Caller, Fingerprints, expiry_of
from msrcache.access.pinging import AnonymousPing
from msrcache.access.questions import Questions, answer_of
from msrcache.access.verdicts import Key, Standing, Verdicts
from msrcache.oci.errors import TooManyRequests, UpstreamBroken, UpstreamUnavailable, is_refusal
from msrcache.oci.names import Repository
from msrcache.oci.pulls import BlobPull, Catalog, ManifestPull, Ping, Pull, Referrers, TagsList
from msrcache.oci.registry import Credential, Registry, Right
from msrcache.telemetry.metrics import Metrics

Subject = tuple[str, ...]
"""Caller, repository, kind, and what of it."""


class AskingRight:
    """One caller's right during one request; implements Right."""

    __slots__ = ("_gate", "_name", "caller", "graced", "lent")

    def __init__(self, gate: "AskingGate", caller: Caller) -> None:
        self._gate = gate
        self._name = ""
        self.caller = caller
        self.lent = False
        """Whether the service account fetches for it: what it then gets is no yes to this caller."""
        self.graced = False
        """As Right.graced."""

    def __repr__(self) -> str:
        return f"<AskingRight {self.caller.address}>"

    @property
    def credential(self) -> Credential:
        """The caller's own."""
        return self.caller.credential

    @property
    def name(self) -> str:
        """The keyed hash that stands for the caller."""
        if not self._name:
            self._name = self._gate.fingerprints.of(self.caller.credential)
        return self._name

    async def ask(self, pull: Pull, *, unreachable: bool = False) -> bool:
        """As Right.ask."""
        return await self._gate.decide(self, pull, unreachable=unreachable)

    def granted(self, repository: Repository) -> None:
        """As Right.granted."""
        if not self.lent:
            self._gate.verdicts.remember((self.name, repository), expiry=expiry_of(self.credential))

    def known(self, pull: Pull) -> bool:
        """Whether a yes to this caller for the pull's repository is remembered, be it for grace only."""
        return self._gate.verdicts.standing(_key(self, pull)) is not Standing.NONE

    def withdrawn(self, pull: Pull) -> None:
        """The upstream refused this caller the pull's repository: forget the yes."""
        self._gate.verdicts.forget(_key(self, pull))


class AskingGate:
    """Implements Gate over `upstream`, a registry that is asked with the credential of each pull's right."""

    def __init__(
        self,
        *,
        upstream: Registry,
        verdicts: Verdicts,
        fingerprints: Fingerprints,
        pings: AnonymousPing,
        metrics: Metrics,
        patience: float = 3.0,
    ) -> None:
        """`patience`: seconds that a caller with grace waits for the upstream's answer."""
        self.verdicts = verdicts
        self.fingerprints = fingerprints
        self._upstream = upstream
        self._pings = pings
        self.patience = patience
        self._questions: Questions[Subject, None] = Questions()
        self._first: dict[Key, Subject] = {}
        self._told = {
            name: metrics.verdicts_total.labels(name)
            for name in ("yes", "remembered", "grace", "refused", "limited", "unavailable")
        }
        self._asked = {
            name: metrics.questions_total.labels(name) for name in ("yes", "refused", "unavailable", "joined")
        }

    def __repr__(self) -> str:
        return f"<AskingGate {self.verdicts!r} {self._questions!r}>"

    async def admit(self, caller: Caller, pull: Pull) -> Right:
        """A right that asks when the pull needs it."""
        return AskingRight(self, caller)

    async def ping(self, caller: Caller) -> None:
        """Without a credential from the remembered challenge; with one the upstream is asked."""
        if caller.credential.header:
            await AskingRight(self, caller).ask(Ping(request_id=caller.request_id))
        else:
            await self._pings.answer()

    def identity(self, caller: Caller) -> str:
        """A short keyed hash: who sent a credential is known to the upstream alone."""
        return self.fingerprints.shown(caller.credential)

    async def close(self) -> None:
        """Stop the questions under way."""
        await self._questions.close()
        await self._pings.close()

    async def decide(self, right: AskingRight, pull: Pull, *, unreachable: bool) -> bool:
        """What Right.ask promises."""
        standing = self.verdicts.standing(_key(right, pull))
        right.graced = False
        if standing is Standing.FRESH:
            self._told["remembered"].inc()
            return False
        graced = standing is Standing.GRACE
        try:
            if unreachable:
                raise UpstreamUnavailable("the upstream registry cannot be asked whether you may read this")
            confirmed = await self._confirmed(right, pull, self.patience if graced else None)
        except (UpstreamUnavailable, TimeoutError):
            # Looked at again: a no to this caller may have come while this question was waiting.
            if graced and right.known(pull):
                self._told["grace"].inc()
                right.graced = True
                return False
            self._told["unavailable"].inc()
            raise
        except Exception as error:
            self._told["limited" if isinstance(error, TooManyRequests) else "refused"].inc()
            raise
        self._told["yes"].inc()
        return confirmed

    async def _confirmed(self, right: AskingRight, pull: Pull, patience: float | None) -> bool:
        key, subject = _key(right, pull), _subject(right, pull)
        first = self._first.get(key)
        if first is not None and first != subject and (other := self._questions.under_way(first)) is not None:
            self._asked["joined"].inc()
            try:
                await answer_of(other, patience=patience)
            except Exception as error:
                if not (is_refusal(error) or isinstance(error, TooManyRequests)):
                    raise
            else:
                return False
        while (equal := self._questions.under_way(subject)) is not None:
            self._asked["joined"].inc()
            try:
                await answer_of(equal, patience=patience)
            except TooManyRequests:
                continue  # the address of the one who asked has used up its refusals; ours may have not
            return True
        await answer_of(self._put(right, pull, key, subject), patience=patience)
        return True

    def _put(self, right: AskingRight, pull: Pull, key: Key, subject: Subject) -> asyncio.Task[None]:
        self._first.setdefault(key, subject)
        task = self._questions.put(subject, lambda: self._question(right, pull, key))
        task.add_done_callback(lambda _: self._over(key, subject))
        return task

    def _over(self, key: Key, subject: Subject) -> None:
        if self._first.get(key) == subject:
            del self._first[key]

    async def _question(self, right: AskingRight, pull: Pull, key: Key) -> None:
        """Put the question, and remember a yes even when everybody who waited has left."""
        try:
            await self._ask_upstream(pull.by(right))
        except UpstreamUnavailable:
            self._asked["unavailable"].inc()
            raise
        except Exception as error:
            if is_refusal(error):
                self._asked["refused"].inc()
                self.verdicts.forget(key)
            raise
        self._asked["yes"].inc()
        self.verdicts.remember(key, expiry=expiry_of(right.credential))

    async def _ask_upstream(self, pull: Pull) -> None:
        match pull:
            case ManifestPull():
                await self._upstream.resolve(replace(pull, head=True))
            case BlobPull():
                await self._upstream.resolve(replace(pull, head=True, range=None))
            case Ping() | TagsList() | Referrers() | Catalog():
                answer = await self._upstream.relay(pull)
                if not 200 <= answer.status < 300:
                    raise UpstreamBroken(
                        f"the upstream answered a question of access with status {answer.status}"
                    )
            case _:
                assert_never(pull)


def _key(right: AskingRight, pull: Pull) -> Key:
    match pull:
        case Ping():
            return right.name, ""
        case Catalog():
            return right.name, "*"  # no repository has this name
        case _:
            return right.name, pull.repository


def _subject(right: AskingRight, pull: Pull) -> Subject:
    key = _key(right, pull)
    match pull:
        case ManifestPull():
            # What a reference means, and whether it is there, may depend on the media types asked for.
            return (*key, pull.kind, str(pull.reference), *pull.accept)
        case BlobPull() | Referrers():
            return (*key, pull.kind, str(pull.digest))
        case _:
            return (*key, pull.kind)
