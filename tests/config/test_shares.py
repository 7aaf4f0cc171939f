"""config.shares: what one worker of several is configured with."""

import pytest

from msrcache.config.cache import CacheSection
from msrcache.config.changes import changed
from msrcache.config.model import Config
from msrcache.config.shares import Share, share
from tests.config.files import bare, loaded

GIVEN = """\
cache:
  workers: 3
  spool: {size: 10MB}
  local: {path: /fast, size: 20MB}
  fill: {concurrency: 64}
  upstream: {connections: 2}
  limits: {connections: 100, peraddress: 7}
"""


def _shared(config: Config, number: int = 1, *, of: int = 3) -> Config:
    return share(config, Share(number=number, of=of, asked=config.cache.workers, secret="made-up"))


def test_what_bounds_the_whole_is_divided() -> None:
    """All parts together are at most the whole, and each is at least 1."""
    config = loaded(GIVEN).config
    parts = [_shared(config, number).cache for number in (1, 2, 3)]
    assert sum(part.spool.size for part in parts) <= config.cache.spool.size
    assert sum(part.local.size for part in parts) <= config.cache.local.size
    first = parts[0]
    assert (first.spool.size, first.local.size, first.fill.concurrency) == (3_333_333, 6_666_666, 21)
    assert (first.upstream.connections, first.limits.connections, first.limits.per_address) == (1, 33, 7)


def test_no_bound_stays_none() -> None:
    """0 has its own meaning."""
    part = _shared(Config()).cache
    assert (part.spool.size, part.local.size, part.limits.connections) == (0, 0, 0)


def test_they_sign_with_one_secret() -> None:
    """The operator's, where there is one; else the one that was made for them."""
    assert _shared(Config()).secret is not None
    assert _shared(Config()).secret == _shared(Config(), 2).secret
    own = _shared(loaded("http: {secret: mine}").config).secret
    assert own is not None
    assert own.get_secret_value() == "mine"


def test_their_lines_say_which_they_are() -> None:
    """Beside the operator's own fields."""
    assert _shared(loaded("log: {fields: {site: lyon}}").config, 2).log.fields == {
        "site": "lyon",
        "worker": "2",
    }


def _peers(text: str) -> list[tuple[str, str]]:
    config = loaded(f"{text}\nhttp: {{secret: mine}}").config
    return [(peer.addr, peer.advertise) for peer in (_shared(config, number).cache.peer for number in (1, 2))]


def test_each_has_a_peer_port() -> None:
    """The operator's port and those behind it; the default gives way by itself; none stays none."""
    assert _peers("cache: {peer: {addr: ':7000', advertise: 'a:7100'}}") == [
        (":7000", "a:7100"),
        (":7001", "a:7101"),
    ]
    assert _peers("cache: {peer: {addr: '[::1]:0'}}") == [("[::1]:0", "")] * 2
    assert _peers("cache: {peer: {addr: ''}}") == [("", "")] * 2
    peer = _shared(loaded("http: {secret: mine}").config, 2).cache.peer
    assert peer.addr == ":5005"
    assert "addr" not in peer.model_fields_set


def test_with_a_secret_of_their_own_and_a_folder_they_only_have_each_other() -> None:
    """Loopback; where the store is a service, other replicas may see them and are told that they may not."""
    folder = "version: 0.1\nstorage: {filesystem: {rootdirectory: /data}}\nproxy: {remoteurl: https://a}\n"
    assert _shared(bare(folder).config).cache.peer.addr == "127.0.0.1:0"
    assert _shared(loaded("").config).cache.peer.addr == ":5005"


def test_auto_becomes_a_number_and_a_new_number_waits() -> None:
    """Re-read: the same word changes nothing, another one is told as what takes effect at the next start."""
    config = loaded("cache: {workers: auto}").config
    part = Share(number=1, of=4, asked=config.cache.workers, secret="made-up")
    before = share(config, part)
    assert before.cache.workers == 4
    assert changed(before, share(config, part)) == []
    assert changed(before, share(loaded("cache: {workers: 6}").config, part)) == ["cache.workers"]


def test_everything_else_is_the_operators() -> None:
    """Nothing but these keys differs."""
    config = loaded(GIVEN).config
    assert changed(config, _shared(config)) == [
        *("cache.fill.concurrency", "cache.limits.connections", "cache.local.size", "cache.spool.size"),
        *("cache.upstream.connections", "http.secret", "log.fields.worker"),
    ]


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("64", 64), ("auto", 0)])
def test_a_number_of_workers(text: str, count: int) -> None:
    """1 to 64, or auto, and shown as it was written."""
    cache = loaded(f"cache: {{workers: {text}}}").config.cache
    assert cache.workers == count
    assert str(cache.model_dump(mode="json")["workers"]) == text
    assert CacheSection().workers == 1
