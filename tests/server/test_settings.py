"""server.settings: the server's part of the configuration."""

from ipaddress import ip_network

from msrcache.config.model import Config
from msrcache.server.settings import Limits, ServerSettings

GIVEN = {
    "version": "0.1",
    "http": {
        "addr": "127.0.0.1:5443",
        "prefix": "/r/",
        "host": "https://cache.test/",
        "relativeurls": "true",
        "draintimeout": "2m",
        "headers": {"X-A": ["b"]},
        "debug": {"addr": "127.0.0.1:5001", "prometheus": {"enabled": "true", "path": "/prom"}},
    },
    "proxy": {"remoteurl": "https://msr.test"},
    "cache": {
        "trusted": ["10.0.0.0/8"],
        "proxyprotocol": "true",
        "drain": {"delay": "1s"},
        "limits": {
            "connections": "7",
            "peraddress": "3",
            "headers": "32KiB",
            "idle": "9s",
            "path": "1KiB",
        },
        "metrics": {"addr": "127.0.0.1:5002"},
    },
}


def test_every_key_arrives() -> None:
    """What the operator writes is what the server is told."""
    config = Config.model_validate(GIVEN)
    settings = ServerSettings.of(config)
    assert (settings.addr, settings.net, settings.prefix) == ("127.0.0.1:5443", "tcp", "/r/")
    assert (settings.host, settings.relative_urls) == ("https://cache.test", True)
    assert (settings.drain_delay, settings.drain_timeout) == (1.0, 120.0)
    assert settings.headers == {"X-A": ("b",)}
    assert (settings.debug_addr, settings.metrics_path) == ("127.0.0.1:5001", "/prom")
    assert (settings.metrics_addr, settings.metrics_on_main) == ("127.0.0.1:5002", False)
    assert (settings.trusted, settings.proxy_protocol) == ((ip_network("10.0.0.0/8"),), True)
    assert settings.limits == Limits(
        connections=7, per_address=3, headers=32768, header_timeout=10.0, idle=9.0, path=1024
    )
    assert settings.push_to == "https://msr.test"


def test_the_defaults() -> None:
    """Without a word of the operator: port 5000, everything at the root, metrics on the main listener."""
    settings = ServerSettings.of(Config.model_validate({"version": "0.1"}))
    assert (settings.addr, settings.prefix, settings.metrics_on_main) == (":5000", "/", True)
    assert settings.limits == Limits()
    assert settings.push_to == ""
