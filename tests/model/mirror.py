"""Two replicas that are alike: a state and its mirror image, in which they have changed places, are one."""

from tests.model.leaseworld import Mark, Replica, State

_OTHER = {"0": "1", "1": "0"}


class Mirror:
    """Chooses one of a state and its mirror image, always the same of most."""

    def __init__(self) -> None:
        self._turned: dict[Replica, Replica] = {}
        self._rungs: dict[tuple[Mark | None, ...], tuple[Mark | None, ...]] = {}
        self._order: dict[Replica, int] = {}

    def chosen(self, state: State) -> State:
        """The state, or its image. Where the two replicas are at the same both may be chosen: twice the work."""
        first, second = state.replicas
        turned = self._turn(second)
        if self._place(first) <= self._place(turned):
            return state
        store = state.store._replace(rungs=self._turn_rungs(state.store.rungs))
        return state._replace(replicas=(turned, self._turn(first)), store=store)

    def _place(self, replica: Replica) -> int:
        return self._order.setdefault(replica, len(self._order))

    def _turn(self, replica: Replica) -> Replica:
        """The same, with the other's number in all names."""
        turned = self._turned.get(replica)
        if turned is None:
            got = tuple(
                (key, _renamed(str(value)) if key == "nonce" else value) for key, value in replica.got
            )
            step = replica.step
            if step.holder:
                step = type(step)(
                    step.act, step.n, step.own, step.top, step.floor, _renamed(step.holder), step.doubts
                )
            turned = self._turned[replica] = replica._replace(step=step, got=got)
        return turned

    def _turn_rungs(self, rungs: tuple[Mark | None, ...]) -> tuple[Mark | None, ...]:
        turned = self._rungs.get(rungs)
        if turned is None:
            turned = tuple(None if mark is None else (_renamed(mark[0]), mark[1]) for mark in rungs)
            self._rungs[rungs] = turned
        return turned


def _renamed(nonce: str) -> str:
    return _OTHER[nonce[0]] + nonce[1:]
