"""HTTP_PROXY, HTTPS_PROXY and NO_PROXY mean to us what they mean to Docker and containerd."""

import pytest

from msrcache.upstream.proxies import Proxies
from msrcache.upstream.settings import UpstreamSettingsError

PROXY = "http://proxy.example:3128"


def lead(no_proxy: str, host: str, port: int = 443) -> bool:
    """Whether a request there goes through the proxy."""
    found = Proxies({"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}).lead_to(
        scheme="https", host=host, port=port
    )
    assert found in {None, PROXY}
    return found is not None


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "proxied"),
    [
        ("", "msr.example.com", 443, True),
        ("*", "msr.example.com", 443, False),
        ("a.b, * ,c", "msr.example.com", 443, False),
        ("example.com", "msr.example.com", 443, False),
        ("example.com", "example.com", 443, False),
        ("example.com", "badexample.com", 443, True),
        (".example.com", "msr.example.com", 443, False),
        (".example.com", "example.com", 443, True),
        ("*.example.com", "msr.example.com", 443, False),
        ("*.example.com", "example.com", 443, True),
        ("EXAMPLE.com", "MSR.Example.COM", 443, False),
        ("example.com:443", "msr.example.com", 443, False),
        ("example.com:444", "msr.example.com", 443, True),
        ("10.1.2.3", "10.1.2.3", 443, False),
        ("10.1.2.3:444", "10.1.2.3", 443, True),
        ("10.1.2.3:443", "10.1.2.3", 443, False),
        ("10.1.0.0/16", "10.1.2.3", 443, False),
        ("10.1.0.0/16", "10.2.2.3", 443, True),
        ("10.1.0.0/16", "msr.example.com", 443, True),
        ("2001:db8::/32", "2001:db8::7", 443, False),
        ("2001:db8::7", "2001:db8::7", 443, False),
        ("[2001:db8::7]:443", "[2001:db8::7]", 443, False),
        (":443, ,", "msr.example.com", 443, True),
        ("bücher.example", "xn--bcher-kva.example", 443, False),
    ],
)
def test_no_proxy_as_go_reads_it(no_proxy: str, host: str, port: int, *, proxied: bool) -> None:
    """Names, dots, stars, addresses, blocks and ports."""
    assert lead(no_proxy, host, port) is proxied


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_this_machine_is_never_proxied(host: str) -> None:
    """Loopback is reached directly whatever NO_PROXY says."""
    assert not lead("", host)


def test_which_variable_counts() -> None:
    """By the request's scheme; upper case before lower; an empty one is none."""
    environ = {
        "HTTP_PROXY": "",
        "http_proxy": "http://low",
        "https_proxy": "http://lows",
        "HTTPS_PROXY": "http://UP",
    }
    proxies = Proxies(environ)
    assert proxies.lead_to(scheme="http", host="a.example", port=80) == "http://low"
    assert proxies.lead_to(scheme="https", host="a.example", port=443) == "http://UP"
    assert Proxies({}).lead_to(scheme="https", host="a.example", port=443) is None


def test_in_a_cgi_program_http_proxy_is_a_strangers_header() -> None:
    """REQUEST_METHOD forbids HTTP_PROXY, and HTTPS_PROXY not."""
    proxies = Proxies({"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "REQUEST_METHOD": "GET"})
    assert proxies.lead_to(scheme="https", host="a.example", port=443) == PROXY
    assert proxies.lead_to(scheme="http", host="localhost", port=80) is None
    with pytest.raises(UpstreamSettingsError, match="REQUEST_METHOD"):
        proxies.lead_to(scheme="http", host="a.example", port=80)


def test_a_proxy_without_a_scheme_speaks_http() -> None:
    """`host:port` is how many write it."""
    assert Proxies({"HTTPS_PROXY": "p:3128"}).lead_to(scheme="https", host="a.b", port=443) == "http://p:3128"


@pytest.mark.parametrize("text", ["http://me:pw@", "http://me:pw@host:port", "socks5://me:pw@host:1080"])
def test_a_proxy_that_cannot_be_used_is_refused(text: str) -> None:
    """At the start, with the variable's name, and without the value: it may hold a password."""
    with pytest.raises(UpstreamSettingsError, match="HTTPS_PROXY") as caught:
        Proxies({"HTTPS_PROXY": text})
    assert "me:pw" not in str(caught.value)
