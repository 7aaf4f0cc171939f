"""What one worker of several is configured with: its part of what an operator gives to the whole. Pure.

Not here: how many there are (server.workers), and what of a part is left over.
"""

from dataclasses import dataclass

from pydantic import SecretStr

from msrcache.config.model import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which of how many workers, what `cache.workers` said when they were started, and what they sign with."""

    number: int
    of: int
    asked: int
    secret: str


def share(config: Config, part: Share) -> Config:
    """The configuration of one worker.

    Divided: whatever bounds the disk, the upstream's load or the connections of the whole. A number of workers that
    the operator has changed since the start stays visible, so that a reload can say that it waits for the next one.
    """
    cache = config.cache
    limits = cache.limits
    own = cache.model_copy(
        update={
            "workers": part.of if cache.workers == part.asked else cache.workers,
            "spool": cache.spool.model_copy(update={"size": _part(cache.spool.size, part.of)}),
            "local": cache.local.model_copy(update={"size": _part(cache.local.size, part.of)}),
            "fill": cache.fill.model_copy(update={"concurrency": _part(cache.fill.concurrency, part.of)}),
            "upstream": cache.upstream.model_copy(
                update={"connections": _part(cache.upstream.connections, part.of)}
            ),
            "limits": limits.model_copy(update={"connections": _part(limits.connections, part.of)}),
            "peer": cache.peer.model_copy(update=_peer(config, part)),
        }
    )
    http = config.http
    if config.secret is None:
        http = http.model_copy(update={"secret": SecretStr(part.secret)})
    log = config.log.model_copy(update={"fields": {**config.log.fields, "worker": str(part.number)}})
    return config.model_copy(update={"cache": own, "http": http, "log": log})


def _peer(config: Config, part: Share) -> dict[str, str]:
    """Where other replicas reach it: at the operator's port and those behind it, in order.

    With a secret that nobody else has and a folder that mostly nobody else has, only its fellows need to reach it.
    """
    section = config.cache.peer
    if not section.addr:
        return {}
    if config.secret is None and config.storage.driver == "filesystem":
        return {"addr": "127.0.0.1:0", "advertise": ""}
    given = {name: str(getattr(section, name)) for name in ("addr", "advertise")}
    return {
        name: _shifted(addr, part.number - 1)
        for name, addr in given.items()
        if addr and name in section.model_fields_set
    }


def _shifted(addr: str, by: int) -> str:
    host, _, port = addr.rpartition(":")
    return f"{host}:{int(port) + by}" if int(port) else addr


def _part(whole: int, of: int) -> int:
    """The part of one, at least 1: 0 means no bound, and stays it."""
    return max(1, whole // of) if whole else 0
