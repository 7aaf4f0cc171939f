"""Keys that contradict each other are refused, or warned of, at the key that has to be changed."""

import pytest

from tests.config.files import bare, loaded, refusal, warnings

TLS = "http: {tls: {certificate: /c, key: /k, clientcas: [/a]"
ENTRY = "middleware: {registry: [{name: downstream, options: {upstreams: [https://a]%s}}%s]}\n"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (
            ENTRY % (", blobttl: 24h", ""),
            "middleware.registry[0].options.blobttl",
            "needs storage.delete.enabled",
        ),
        ("auth: {token: {realm: https://x}}", "auth.token", "not available in this version"),
        ("auth: token", "auth.token", "not available in this version"),
        ("auth: {htpasswd: {realm: r}}", "auth.htpasswd.path", "is required"),
        ("cache: {access: {mode: basic}}", "cache.access.htpasswd.path", "is required"),
        (
            "auth: {htpasswd: {path: /h}}\ncache: {access: {mode: open}}",
            "cache.access.mode",
            "contradicts auth.htpasswd",
        ),
        ("http: {tls: {certificate: /c}}", "http.tls.certificate", "together with http.tls.key"),
        ("http: {tls: {clientcas: [/c]}}", "http.tls.clientcas", "there is no TLS"),
        ("http: {net: unix}", "http.addr", "absolute path of a socket"),
        ("http: {addr: 0.0.0.0}", "http.addr", 'or [IPv6 address]:port, here is "0.0.0.0"'),
        ("http: {debug: {addr: ':5000'}}", "http.debug.addr", "address of the main listener"),
        ("cache: {metrics: {addr: ':5000'}}", "cache.metrics.addr", "address of the main listener"),
        ("cache: {peer: {addr: ':5000'}}", "cache.peer.addr", "address of the main listener"),
        ("cache: {peer: {advertise: ':5005'}}", "cache.peer.advertise", "should name a host"),
        (
            "cache: {peer: {tls: {certificate: /c, key: /k}}}",
            "cache.peer.tls.certificate",
            "together with key and ca",
        ),
        ("http: {addr: ':0'}\ncache: {workers: 2}", "http.addr", "should name a port"),
        (
            "http: {debug: {addr: '127.0.0.1:0'}}\ncache: {workers: auto}",
            "http.debug.addr",
            "should name a port",
        ),
        ("http: {net: unix, addr: /s}\ncache: {workers: 2}", "http.net", "needs cache.workers: 1"),
        ("cache: {local: {path: /tier}}", "cache.local.size", "is required beside path"),
        ("cache: {local: {path: tier, size: 1GiB}}", "cache.local.path", "absolute path"),
        (
            "cache: {redirect: {clients: [{networks: []}]}}",
            "cache.redirect.clients[0].networks",
            "at least one",
        ),
        (
            "cache: {redirect: {clients: [{mode: stream}]}}",
            "cache.redirect.clients[0].networks",
            "is required",
        ),
        (
            "cache: {redirect: {clients: [{networks: [10.0.0.0/8], mode: stream, endpoint: https://a}]}}",
            "cache.redirect.clients[0].endpoint",
            "contradicts mode stream",
        ),
        (
            "cache: {redirect: {clients: [{networks: [10.0.0.0/8], endpoint: https://a/bucket}]}}",
            "cache.redirect.clients[0].endpoint",
            "should end after host and port",
        ),
        ("cache: {proxyprotocol: true}", "cache.proxyprotocol", "needs cache.trusted"),
        (
            "cache: {upstreams: [{url: https://a, username: u}]}",
            "cache.upstreams[0].username",
            "together with password",
        ),
        (
            "cache: {upstreams: [{url: https://a, username: u, password: p, passwordfile: /p}]}",
            "cache.upstreams[0].passwordfile",
            "one of the two",
        ),
        (
            "cache: {upstreams: [{url: https://a, certificate: /c}]}",
            "cache.upstreams[0].certificate",
            "together with key",
        ),
        (
            ENTRY % ("", ", {name: downstream, options: {upstreams: [https://b]}}"),
            "middleware.registry[1]",
            "should hold downstream once",
        ),
    ],
)
def test_a_contradiction_is_refused(text: str, key: str, words: str) -> None:
    """Each at the key to change, with what is missing."""
    problem = refusal(text)
    assert problem.key == key
    assert words in str(problem)
    assert problem.place.line is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cache: {upstreams: [{url: https://a, skipverify: true}]}", "give its ca instead"),
        ("cache: {upstreams: [{url: http://a, username: u, password: p}]}", "clear text"),
        (
            f"{TLS}, clientauth: require-any-client-cert}}}}\ncache: {{upstreams: [{{url: https://a}}]}}",
            "is served as require-and-verify-client-cert",
        ),
        (
            "cache: {access: {mode: open}, upstreams: [{url: https://a, username: u, password: p}]}",
            "lets everyone who can reach",
        ),
        (
            "middleware: {storage: [{name: redirect, options: {baseurl: https://a/b}}]}",
            "of its path nothing is used",
        ),
        (
            ENTRY.replace("[https://a]", "[{originhost: https://a}, {originhost: https://b}]") % ("", ""),
            "several origins",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(text: str, words: str) -> None:
    """It may be meant."""
    (warning,) = warnings(text)
    assert words in warning


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("proxy: {username: u}", "has no effect without proxy.remoteurl"),
        ("proxy: {remoteurl: https://a, ttl: 1h}", "has no effect without storage.delete.enabled"),
        ("proxy: {remoteurl: http://a, username: u, password: p}", "clear text"),
        ("http: {addr: ':1'}", "names no upstream"),
        ("cache: {peer: {addr: ':1'}}", "has no effect without http.secret"),
        ("cache: {local: {size: 1GiB}}", "has no effect without cache.local.path"),
        ("cache: {workers: 2}", "a memory of its own"),
        (
            "cache: {redirect: {clients: [{networks: [10.0.0.0/8]}]}}",
            "has no effect beside storage.redirect.disable",
        ),
        (
            "middleware: {storage: [{name: redirect, options: {baseurl: https://a}}]}",
            "has no effect beside storage.redirect.disable",
        ),
    ],
)
def test_what_only_seems_to_work_is_a_warning(text: str, words: str) -> None:
    """Docker Registry accepts these."""
    storage = "storage: {inmemory: , redirect: {disable: true}}"
    problems = bare(f"version: 0.1\n{storage}\n{text}\n").problems
    assert any(words in problem.message for problem in problems)


def test_a_proxy_account_without_password_is_refused() -> None:
    """Half of an account is none."""
    with pytest.raises(Exception, match=r"together with proxy\.password"):
        bare("version: 0.1\nstorage: inmemory\nproxy: {remoteurl: https://a, username: u}\n")


def test_a_blobttl_of_nothing_is_refused() -> None:
    """The replaced cache asks for a positive integer."""
    text = "version: 0.1\nstorage: {inmemory: , delete: {enabled: true}}\n" + ENTRY % (", blobttl: 0", "")
    with pytest.raises(Exception, match="should be more than 0"):
        bare(text)


@pytest.mark.parametrize(
    "text",
    [
        "http: {net: unix, addr: /run/cache.sock}",
        "http: {tls: {certificate: /c, key: /k, clientcas: [/a]}}",
        "cache: {redirect: {clients: [{networks: [10.0.0.0/8], endpoint: https://a:8443}]}}",
        "middleware: {storage: [{name: redirect, options: {baseurl: https://a}}]}",
        "cache: {local: {path: /tier, size: 1GiB, admit: first}}",
        "cache: {proxyprotocol: true, trusted: [10.0.0.1]}",
        "auth: {htpasswd: {path: /h}}\ncache: {access: {mode: basic}}",
        "cache: {upstreams: [{url: https://a, username: u, passwordfile: /p, certificate: /c, key: /k}]}",
    ],
)
def test_what_fits_together_draws_no_word(text: str) -> None:
    """The other side of each rule."""
    assert loaded(text).problems == ()
