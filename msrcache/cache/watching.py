"""Read-after-write consistency watched: replicas tell each other what they have just written, and look for it.

    POST /peer/v1/beats/<replica>   {"v": 1, "beat": 7, "published": [["sha256:…", 0.2], …]}

Rules:
1. When the put of a beat has returned, its writer tells it to one other replica, another each time. That one reads the
   record at once and until it shows that beat or a later one: what it takes on its own clock is the visibility lag.
   This reading stands in for its own look at one of the others (`heartbeat`), so it costs the store nothing more.
2. A first reading that does not show the beat is a violation, and so is a miss of a digest that had been published
   before it was looked for (`news`). Digests are told to all others, some at a time.
3. What cannot be told or is not understood is dropped: nothing depends on it. Messages of other versions are taken as
   far as they are understood.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from msrcache.cache.heartbeat import Heartbeat
from msrcache.cache.news import News
from msrcache.oci.digest import Digest
from msrcache.oci.errors import RegistryError
from msrcache.oci.peers import Member
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

GATHERED: Final = 0.5
"""Seconds for which published digests are gathered before they are told."""
FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 2.0
GIVEN_UP: Final = 30.0
"""Seconds after which a beat that does not show is looked for no more."""
MEASURES: Final = 2
"""Beats of others that are looked for in one interval."""

Tell = Callable[[Member, bytes], Awaitable[None]]
"""Tells a replica; bounded in time, and never raises for one that cannot be reached."""

log = get_logger(__name__)


class Watching:
    """The telling and the looking of one replica."""

    def __init__(self, fleet: Heartbeat, news: News, tell: Tell, *, metrics: Metrics, clock: Clock) -> None:
        self._fleet = fleet
        self._news = news
        self._tell = tell
        self._metrics = metrics
        self._clock = clock
        self._left = MEASURES
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Watching [{len(self._tasks)} tasks]>"

    def start(self) -> None:
        """Tell what is published from now on."""
        self._begin(self._run)

    async def close(self) -> None:
        """Tell and look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def beat(self, beat: int) -> None:
        """The put of this beat has returned: tell it."""
        self._left = MEASURES
        if (member := chosen(self._fleet.alive(), self._fleet.replica, beat)) is not None:
            self._begin(partial(self._tell, member, message(beat=beat)))

    def hear(self, replica: str, body: bytes) -> bool:
        """Another replica tells something; whether it was understood."""
        told = understood(body)
        if told is None:
            return False
        beat, published = told
        self._fleet.heard_of(replica)
        self._news.heard(published)
        if beat and self._left > 0:
            self._left -= 1
            self._begin(partial(self._measure, replica, beat))
        return True

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(_done(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        while True:
            await self._news.arrived.wait()
            await asyncio.sleep(GATHERED)
            body = message(published=self._news.take())
            others = [one for one in self._fleet.alive() if one.replica != self._fleet.replica]
            await asyncio.gather(*(self._tell(member, body) for member in others), return_exceptions=True)

    async def _measure(self, replica: str, beat: int) -> None:
        """Read the record until it shows the beat; the store that cannot be read shows nothing, and is no measure."""
        began, wait, first = self._clock.monotonic(), FIRST_WAIT, True
        while (record := await self._fleet.read(replica)) is not None and record.beat:
            lag = self._clock.monotonic() - began
            if record.beat >= beat or lag > GIVEN_UP:
                self._metrics.visibility_lag_seconds.observe(lag)
                self._fleet.lag = lag
                return
            if first:
                first = False
                self._violated(replica, beat)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _violated(self, replica: str, beat: int) -> None:
        self._metrics.readafterwrite_violations_total.labels("beat").inc()
        text = "the store did not show what another replica had written to it: it is not read-after-write consistent"
        log.warning(text, replica=replica, beat=beat)


async def _done(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Exception:  # nothing depends on it
        log.exception("watching the store failed by an error of this program")


def chosen(alive: Sequence[Member], own: str, beat: int) -> Member | None:
    """Whom to tell this beat (pure): another of the living each time, so spread that nobody is told by all at once."""
    names = [member.replica for member in alive]
    others = len(alive) - 1
    if others < 1:
        return None
    return alive[(names.index(own) + 1 + beat % others) % len(alive)]


def message(*, beat: int = 0, published: Sequence[tuple[Digest, float]] = ()) -> bytes:
    """What is told."""
    listed = [[str(digest), round(age, 3)] for digest, age in published]
    return json.dumps({"v": 1, "beat": beat, "published": listed}).encode()


def understood(body: bytes) -> tuple[int, Sequence[tuple[Digest, float]]] | None:
    """The beat (0: none) and the published digests; None where nothing of it is understood."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    beat, listed = told.get("beat"), told.get("published")
    entries = listed if isinstance(listed, list) else []
    published = [entry for one in entries if (entry := _published(one)) is not None]
    return (beat if isinstance(beat, int) else 0), published


def _published(entry: object) -> tuple[Digest, float] | None:
    match entry:
        case [str(text), int() | float() as age, *_]:
            try:
                return Digest.parse(text), float(age)
            except RegistryError:
                return None
    return None
