"""Which upstreams had a part in a request: noted where they are asked, told in the request's access record.

A task started for a request has its trail too (context variables are inherited). A fill has one of its own, because
it belongs to no request: whoever reads it follows that trail. An equal question that somebody else put is theirs.
"""

from contextvars import ContextVar


class Trail:
    """The upstreams asked, each once, in order."""

    __slots__ = ("names", "others")

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.others: tuple[Trail, ...] = ()

    def __str__(self) -> str:
        """Their names, separated by commas; empty where none was asked."""
        if not self.others:
            return ",".join(self.names)
        return ",".join(self.names | {name: None for other in self.others for name in other.names})

    def asked(self, upstream: str) -> None:
        """A request went to this upstream."""
        self.names[upstream] = None

    def follow(self, other: "Trail") -> None:
        """What the other finds, now and later, counts here too."""
        self.others += (other,)


# The trail of what this task works for; None where nobody wants to know.
TRAIL: ContextVar[Trail | None] = ContextVar("msrcache_trail", default=None)
