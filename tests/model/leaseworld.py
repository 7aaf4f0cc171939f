"""A world of replicas that share one store and fill one blob, for an explorer of all its interleavings.

The decisions are the code's own (`leaserules`); a Rules holds them, so that a test can put a mutant in one's place.
One move is a single call to the store, a step of following, the beginning or the end of a fetch, or a fault. Calls that
are made at once are answered in any order. Faults, each as often as its budget says: a crash (the process is down, and
may come back), an expiry (somebody alive is taken for dead, as after a pause of any length), a lost reply (done, not
told), a sick store (given up after patience), a fill that failed, an arrival that was cancelled. And once nobody came
for a long time ("idle"): the blob expires, and the janitor removes the rungs.
Every arrival beats at most once. Not here: time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from msrcache.cache import leaserules
from msrcache.cache.leaserules import FIRST, Act, End, Last, Own, Rung, Seen, Step
from msrcache.oci.peers import Sign

Mark = tuple[str, bool]
"""A rung that is there: the nonce of who wrote it, and whether it is held."""


class Store(NamedTuple):
    """What the store has."""

    blob: bool
    rungs: tuple[Mark | None, ...]

    def at(self, n: int) -> Mark | None:
        """The rung, or nothing."""
        return self.rungs[n] if n < len(self.rungs) else None

    def put(self, n: int, mark: Mark | None) -> "Store":
        """With another rung there."""
        rungs = [*self.rungs, *[None] * (n + 1 - len(self.rungs))]
        rungs[n] = mark
        while rungs and rungs[-1] is None:
            rungs.pop()
        return Store(self.blob, tuple(rungs))


class Replica(NamedTuple):
    """One replica: its arrival number k, what that is at, and what it has been answered so far."""

    k: int
    phase: str  # climb, follow, fetch, commit, end, down, done
    step: Step = FIRST
    last: End | None = None
    got: tuple[tuple[str, object], ...] = ()  # of two calls at once
    at: int = -1  # the next rung that is deleted
    begun: bool = False
    well: bool = False
    beat: int = 0  # calls of the beat that were answered; 3: it beats no more
    lost: bool = False
    passed: bool = False  # somebody took it for dead
    fresh: bool = False  # it has done nothing yet


class State(NamedTuple):
    """All there is; `slack` is how many more fetches there may be."""

    store: Store
    replicas: tuple[Replica, ...]
    left: tuple[int, ...]
    slack: int
    waited: int  # dead holders that were waited for


FAULTS = ("crash", "expiry", "lost", "sick", "fail", "leave", "idle")


@dataclass(frozen=True, slots=True)
class Rules:
    """What is explored; each is the code's own unless a test changes it."""

    after: Callable[[Step, Seen], Step] = leaserules.after
    ending: Callable[..., End] = leaserules.ending
    ended: Callable[[End, Seen], End] = leaserules.ended
    first: Callable[[Replica], Step] = lambda _: FIRST
    awaits_beat: bool = True
    janitor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How large it is. `faults` is how many there may be in all, `each` how often each kind."""

    rules: Rules = field(default_factory=Rules)
    replicas: int = 2
    arrivals: int = 2
    faults: int = 0
    kinds: tuple[str, ...] = FAULTS
    each: int = 1

    def start(self) -> State:
        """Nobody has arrived."""
        left = (self.faults, *(self.each if kind in self.kinds else 0 for kind in FAULTS))
        return State(
            Store(blob=False, rungs=()), (Replica(0, "climb", fresh=True),) * self.replicas, left, 1, 0
        )

    def moves(self, state: State) -> Iterator[tuple[State, bool]]:
        """Every state that may be next, and whether it takes a fault to get there."""
        for number, replica in enumerate(state.replicas):
            move = _Move(self, state, number, replica)
            for after in move.all():
                yield after, after.left[0] != state.left[0]
        idle = all(replica.fresh or replica.phase in ("down", "done") for replica in state.replicas)
        if idle and (spent := spending(state, "idle", slack=int(state.store.blob))) is not None:
            yield spent._replace(store=Store(blob=False, rungs=())), True
        if self.rules.janitor:
            for n, mark in enumerate(state.store.rungs):
                if mark is not None and not mark[1]:
                    yield state._replace(store=state.store.put(n, None)), False


def nonce(number: int, replica: Replica) -> str:
    """What the replica's arrival under way is called."""
    return f"{number}.{replica.k}"


def spending(state: State, kind: str, *, slack: int) -> State | None:
    """The state with one fault less, which may cost so many fetches; None where there is none left."""
    index = 1 + FAULTS.index(kind)
    if not state.left[0] or not state.left[index]:
        return None
    left = list(state.left)
    left[0] -= 1
    left[index] -= 1
    return state._replace(left=tuple(left), slack=state.slack + slack)


class _Move:
    """The moves of one replica in one state."""

    def __init__(self, world: World, state: State, number: int, replica: Replica) -> None:
        self.world = world
        self.rules = world.rules
        self.state = state
        self.number = number
        self.replica = replica
        self.nonce = nonce(number, replica)

    def all(self) -> Iterator[State]:
        replica = self.replica
        match replica.phase:
            case "climb":
                yield from self._climb()
            case "follow":
                yield from self._follow()
            case "fetch":
                yield from self._fetch()
            case "commit":
                yield self._with(self._last(well=True), store=self.state.store._replace(blob=True))
            case "end":
                yield from self._end()
            case "down":
                yield self._with(self._next())
        if replica.phase not in ("done", "down"):
            yield from self._faults()

    # Climbing.

    def _climb(self) -> Iterator[State]:
        replica, step, store = self.replica, self.replica.step, self.state.store
        match step.act:
            case Act.CREATE:
                taken = store.at(step.n) is not None
                made = store if taken else store.put(step.n, (self.nonce, True))
                yield self._seen(Seen(made=not taken), made)
                yield from self._lost(replica, made, Seen(failed=True))
            case Act.RELEASE:
                put = store.put(step.n, (self.nonce, False))
                yield self._seen(Seen(), put)
                yield from self._lost(replica, put)
            case Act.LOOK | Act.RETURN:
                yield self._seen(Seen(blob=store.blob))
            case Act.WAIT:
                yield self._seen(Seen())
            case Act.CLEAR:
                yield from self._clear(step.top, step.floor, lambda: self._after(Seen()))
            case _:
                yield from self._climb_two()

    def _climb_two(self) -> Iterator[State]:
        """Two calls at once, answered in any order."""
        got = dict(self.replica.got)
        step, store = self.replica.step, self.state.store
        if "above" not in got:
            yield from self._answered({**got, "above": store.at(step.n + 1) is not None}, self.state)
        if step.act is Act.PROVE and "blob" not in got:
            yield from self._answered({**got, "blob": store.blob}, self.state)
        if step.act is Act.READ and "rung" not in got:
            for read, state in self._reads(step.n):
                yield from self._answered({**got, **read}, state)

    def _reads(self, n: int) -> Iterator[tuple[dict[str, object], State]]:
        """What may be read at the rung: who holds it may seem to be dead, and who is dead may not seem so yet."""
        mark = self.state.store.at(n)
        if mark is None:
            yield {"rung": Rung.MISSING}, self.state
        elif not mark[1]:
            yield {"rung": Rung.RELEASED}, self.state
        elif mark[0] == self.nonce:
            yield {"rung": Rung.OWN}, self.state
        else:
            held = {"rung": Rung.HELD, "nonce": mark[0]}
            yield {**held, "expired": False}, self.state
            if not self._alive(mark[0]):
                yield {**held, "expired": True}, self.state
            elif (spent := self._spent("expiry", slack=1)) is not None:
                yield {**held, "expired": True}, spent

    def _answered(self, got: dict[str, object], state: State) -> Iterator[State]:
        self_ = _Move(self.world, state, self.number, self.replica)
        if ("blob" in got or "rung" in got) and "above" in got:
            yield self_._seen(Seen(**got))  # type: ignore[arg-type]
        else:
            yield self_._with(self.replica._replace(got=tuple(sorted(got.items(), key=lambda item: item[0]))))

    def _seen(self, seen: Seen, store: Store | None = None) -> State:
        after = self._with(self._after(seen), store=store)
        succeeds = self.replica.step.act is Act.READ and seen.rung is Rung.HELD
        if succeeds and after.replicas[self.number].step.act is Act.CREATE:
            after = self._passed(after, seen.nonce)
        if after.replicas[self.number].phase == "fetch":
            after = after._replace(slack=after.slack - 1)
        return after

    def _passed(self, after: State, holder: str) -> State:
        """Whoever held the rung is passed by; a dead one was waited for, unless the blob was there to be found."""
        if not self._alive(holder):
            return after._replace(waited=after.waited + (not after.store.blob))
        number = int(holder[0])
        replicas = list(after.replicas)
        replicas[number] = replicas[number]._replace(passed=True)
        return after._replace(replicas=tuple(replicas))

    def _after(self, seen: Seen) -> Replica:
        replica = self.replica
        step = self.rules.after(replica.step, seen)
        replica = replica._replace(step=step, got=(), at=-1, fresh=False)
        if step.act is Act.FETCH:
            return replica._replace(phase="fetch", beat=0 if step.own is Own.HELD else 3)
        if step.act is Act.FOLLOW:
            return replica._replace(phase="follow")
        if step.act is Act.FOUND:
            return self._last(well=False, replica=replica)
        return replica._replace(phase="climb")

    # Following.

    def _follow(self) -> Iterator[State]:
        number, k = map(int, self.replica.step.holder.split("."))
        target = self.state.replicas[number]
        if target.k != k or target.phase == "done":
            yield self._seen(Seen(sign=Sign.REPLACED))
        elif target.phase == "down":
            yield self._seen(Seen(sign=Sign.UNREACHED))
        elif target.phase == "commit" or (target.phase == "end" and target.well):
            yield self._with(self._last(well=False))
        elif target.phase == "fetch" and target.begun:
            yield self._seen(Seen(sign=Sign.BROKEN))
        else:
            yield self._seen(Seen(sign=Sign.NOFILL))

    # Holding.

    def _fetch(self) -> Iterator[State]:
        replica, store = self.replica, self.state.store
        if not replica.begun:
            yield self._with(replica._replace(begun=True))
        if replica.beat < 3:
            yield from self._beat(replica, store)
        if not replica.begun or (replica.beat in (1, 2) and self.rules.awaits_beat):
            return  # a request of the beat is under way: it is awaited
        yield self._with(replica._replace(phase="commit", beat=self._beats_on(), got=()))
        if (spent := self._spent("fail", slack=1)) is not None:
            yield _Move(self.world, spent, self.number, replica)._with(self._last(well=False))

    def _beats_on(self) -> int:
        return 3 if self.rules.awaits_beat else self.replica.beat

    def _beat(self, replica: Replica, store: Store) -> Iterator[State]:
        n = replica.step.n
        if replica.beat == 0:
            own = store.at(n) == (self.nonce, True)
            yield self._with(replica._replace(beat=1 if own else 3, lost=replica.lost or not own))
        elif replica.beat == 1:
            above = store.at(n + 1) is not None
            yield self._with(replica._replace(beat=3 if above else 2, lost=replica.lost or above))
            yield self._with(replica._replace(beat=3, lost=replica.lost or above))  # it was being stopped
        else:
            yield self._with(replica._replace(beat=3), store=store.put(n, (self.nonce, True)))

    # Ending.

    def _last(self, *, well: bool, replica: Replica | None = None) -> Replica:
        replica = replica or self.replica
        end = self.rules.ending(replica.step, well=well, lost=replica.lost)
        beat = 3 if self.rules.awaits_beat else replica.beat
        return self._ended_or(
            replica._replace(
                phase="end", last=end, well=well, beat=beat, got=(), at=-1, begun=False, fresh=False
            )
        )

    def _ended_or(self, replica: Replica) -> Replica:
        assert replica.last is not None
        beats = replica.beat in (1, 2)  # a mutant's, which nobody waits for
        return self._next() if replica.last.last is Last.DONE and not beats else replica

    def _next(self) -> Replica:
        replica = Replica(self.replica.k + 1, "climb", fresh=True)
        if replica.k == self.world.arrivals:
            return Replica(self.replica.k, "done")
        return replica._replace(step=self.rules.first(self.replica))

    def _end(self) -> Iterator[State]:
        replica, store = self.replica, self.state.store
        end = replica.last
        assert end is not None
        if replica.beat in (1, 2):
            for state in self._beat(replica, store):
                mine = state.replicas[self.number]
                yield _Move(self.world, state, self.number, mine)._with(self._ended_or(mine))
        match end.last:
            case Last.CHECK:
                mark = store.at(end.n)
                rung = Rung.OWN if mark == (self.nonce, True) else Rung.MISSING
                yield self._with(self._end_after(Seen(rung=rung)))
            case Last.RELEASE:
                put = store.put(end.n, (self.nonce, False))
                yield self._with(self._end_after(Seen()), store=put)
                yield from self._lost(replica, put)
            case Last.LOOK:
                yield self._with(self._end_after(Seen(blob=store.blob)))
            case Last.CLEAR:
                yield from self._clear(end.n, end.floor, lambda: self._end_after(Seen()))

    def _end_after(self, seen: Seen) -> Replica:
        assert self.replica.last is not None
        return self._ended_or(self.replica._replace(last=self.rules.ended(self.replica.last, seen), at=-1))

    def _clear(self, top: int, floor: int, then: Callable[[], Replica]) -> Iterator[State]:
        """One rung after the other, from the top; a deletion that is lost begins anew."""
        n = self.replica.at if self.replica.at >= 0 else top
        store = self.state.store.put(n, None)
        after = self._struck(n)
        yield after._with(then() if n == floor else self.replica._replace(at=n - 1), store=store)
        if (spent := after._spent("lost", slack=1)) is not None:
            yield _Move(self.world, spent, self.number, self.replica)._with(
                self.replica._replace(at=-1), store=store
            )

    def _struck(self, n: int) -> "_Move":
        """Deleting somebody else's rung passes him by."""
        mark = self.state.store.at(n)
        if mark is None or mark[0] == self.nonce or not self._alive(mark[0]):
            return self
        replicas = list(self.state.replicas)
        number = int(mark[0][0])
        replicas[number] = replicas[number]._replace(passed=True)
        return _Move(self.world, self.state._replace(replicas=tuple(replicas)), self.number, self.replica)

    # Faults.

    def _faults(self) -> Iterator[State]:
        replica = self.replica
        if (spent := self._spent("crash", slack=1)) is not None:
            yield _Move(self.world, spent, self.number, replica)._with(Replica(replica.k, "down"))
        asks = replica.phase == "climb" and replica.step.act is not Act.WAIT
        if asks and (spent := self._spent("sick", slack=1)) is not None:
            yield _Move(self.world, spent, self.number, replica)._seen(Seen(failed=True))
        if replica.phase in ("climb", "follow") and (spent := self._spent("leave", slack=0)) is not None:
            yield _Move(self.world, spent, self.number, replica)._with(self._last(well=False))

    def _lost(self, replica: Replica, store: Store, seen: Seen | None = None) -> Iterator[State]:
        """It was done and not told: it is done again, or settled by what was seen."""
        if (spent := self._spent("lost", slack=1)) is not None:
            move = _Move(self.world, spent, self.number, replica)
            yield move._with(replica, store=store) if seen is None else move._seen(seen, store)

    def _spent(self, kind: str, *, slack: int) -> State | None:
        return spending(self.state, kind, slack=slack)

    def _alive(self, holder: str) -> bool:
        """Whether the arrival with that nonce is under way."""
        number, k = map(int, holder.split("."))
        target = self.state.replicas[number]
        return target.k == k and target.phase not in ("down", "done")

    def _with(self, replica: Replica, *, store: Store | None = None) -> State:
        replicas = list(self.state.replicas)
        replicas[self.number] = replica
        return self.state._replace(
            replicas=tuple(replicas), store=self.state.store if store is None else store
        )
