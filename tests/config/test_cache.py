"""The cache's own section: types, bounds and defaults that the rest of the program relies on."""

import pytest

from msrcache.config.cache import MIB, CacheSection
from tests.config.files import loaded, refusal


def test_the_defaults_are_those_of_the_design() -> None:
    """The upstream decides, tags are asked for each time, a yes lasts a minute and five in an outage."""
    cache = CacheSection()
    assert (cache.access.mode, cache.access.verdict, cache.access.grace) == ("upstream", 60.0, 300.0)
    assert (cache.freshness.ttl, cache.freshness.budget, cache.range) == (0.0, 3.0, "verified")
    assert (cache.fill.queue, cache.fill.abandon, cache.lease.threshold) == (10.0, 300.0, MIB)
    assert (cache.limits.headers, cache.verify.timeout) == (64 * 1024, 5.0)
    assert (cache.peer.addr, cache.peer.advertise, cache.peer.tls.enabled) == (":5005", "", False)


def test_every_key_can_be_set() -> None:
    """One value of each type."""
    text = """\
cache:
  upstreams: [{url: https://a, ca: [/ca.pem], certificate: /c, key: /k}]
  upstream: {resolver: [10.0.0.53], retries: 0}
  access: {mode: open, failures: {perminute: 5}}
  freshness: {immutable: ['.*:v[0-9]+'], breaker: {failures: 3, open: 1m}}
  spool: {path: /fast, size: 10GiB}
  range: early
  trusted: [10.0.0.0/8, "::1"]
  proxyprotocol: true
  catalog: store
  peer: {addr: ":6000", advertise: "10.0.0.7:6000", tls: {certificate: /c, key: /k, ca: [/ca.pem]}}
"""
    cache = loaded(text).config.cache
    assert cache.upstreams[0].ca == ("/ca.pem",)
    assert cache.freshness.immutable[0].fullmatch("library/app:v12")
    assert cache.freshness.breaker.open == 60.0
    assert cache.spool.size == 10 * 1024 * MIB
    assert [str(network) for network in cache.trusted] == ["10.0.0.0/8", "::1/128"]
    assert (cache.peer.advertise, cache.peer.tls.enabled) == ("10.0.0.7:6000", True)
    assert (cache.proxy_protocol, cache.catalog, cache.range) == (True, "store", "early")


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("{access: {mode: none}}", "cache.access.mode", "should be upstream, basic or open"),
        ("{workers: 0}", "cache.workers", "should be a number from 1 to 64, or auto"),
        ("{workers: many}", "cache.workers", "should be a number from 1 to 64, or auto"),
        ("{range: late}", "cache.range", "should be verified or early"),
        ("{fill: {concurrency: 0}}", "cache.fill.concurrency", "should be at least 1"),
        ("{upstream: {headertimeout: 0s}}", "cache.upstream.headertimeout", "should be more than 0"),
        ("{limits: {headers: 1GB}}", "cache.limits.headers", "should be at most 16777216"),
        ("{spool: {size: lots}}", "cache.spool.size", "such as 1048576, 512MB or 10GiB"),
        ("{trusted: 10.0.0.0/8}", "cache.trusted", "should be a list: [10.0.0.0/8]"),
        ("{upstreams: [https://a]}", "cache.upstreams[0]", "should be a map of keys"),
        ("{freshness: {immutable: ['[']}}", "cache.freshness.immutable[0]", "regular expression"),
        ("{proxyprotocol: 1}", "cache.proxyprotocol", "true or false"),
        ("{upstreams: [{url: }]}", "cache.upstreams[0].url", "is required"),
        ("{trusted: [~]}", "cache.trusted[0]", "network"),
        ("{upstream: {resolver: [[a]]}}", "cache.upstream.resolver[0]", "should be a single value"),
    ],
)
def test_wrong_values_are_refused_at_their_key(text: str, key: str, words: str) -> None:
    """With what would be right."""
    problem = refusal(f"cache: {text}")
    assert problem.key == key
    assert words in problem.message
