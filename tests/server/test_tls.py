"""server.tls: a context is loaded whole, then swapped."""

import datetime
import ssl
from pathlib import Path
from typing import Literal

import pytest

from msrcache.config.http import TlsSection
from msrcache.server.settings import Limits, ServerSettings
from msrcache.server.tls import TlsContext, TlsProblem, load_context
from tests.stage.certificates import Authority, KeyPair, authority
from tests.stage.serving import serving, until


@pytest.fixture
def issuer(tmp_path: Path) -> Authority:
    """A private authority."""
    return authority(tmp_path / "ca")


def section(pair: KeyPair, **more: object) -> TlsSection:
    """A TLS section with this key pair."""
    return TlsSection.model_validate({"certificate": str(pair.certificate), "key": str(pair.key), **more})


def trusting(issuer: Authority, shown: KeyPair | None = None) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context(cafile=str(issuer.bundle))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def test_the_context_is_modern_by_default(issuer: Authority) -> None:
    """TLS 1.2 at least, forward secrecy with AEAD only, no client certificate asked for."""
    context = load_context(section(issuer.issue("server")))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    names = [cipher["name"] for cipher in context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) and "SHA" + "1" not in name for name in names)


def test_versions_and_suites_are_the_operators(issuer: Authority) -> None:
    """Go's names of suites and versions become OpenSSL's."""
    given = section(
        issuer.issue("server"), minimumtls="tls1.3", ciphersuites=["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    )
    context = load_context(given)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    names = {cipher["name"] for cipher in context.get_ciphers() if not cipher["name"].startswith("TLS_")}
    assert names == {"ECDHE-RSA-AES128-GCM-SHA256"}


def test_old_versions_only_on_demand(issuer: Authority) -> None:
    """tls1.0 is what the operator asked for, and raises no warning."""
    context = load_context(section(issuer.issue("server"), minimumtls="tls1.0"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1


@pytest.mark.parametrize(
    ("auth", "mode"),
    [
        (None, ssl.CERT_REQUIRED),
        ("request-client-cert", ssl.CERT_NONE),
        ("require-any-client-cert", ssl.CERT_REQUIRED),
        ("verify-client-cert-if-given", ssl.CERT_OPTIONAL),
        ("require-and-verify-client-cert", ssl.CERT_REQUIRED),
    ],
)
def test_client_certificates(issuer: Authority, auth: str | None, mode: ssl.VerifyMode) -> None:
    """clientcas alone requires and verifies; clientauth says it more finely."""
    given = section(issuer.issue("server"), clientcas=[str(issuer.bundle)], clientauth=auth)
    assert load_context(given).verify_mode is mode


Break = Literal["missing", "not pem", "other key", "no key", "no cas", "bad cas"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "cannot read"),
        ("not pem", "holds no PEM block"),
        ("other key", "do not load"),
        ("no key", "needs both"),
        ("no cas", "needs http.tls.clientcas"),
        ("bad cas", "cannot load"),
    ],
)
def test_problems_are_one_sentence(issuer: Authority, tmp_path: Path, what: Break, words: str) -> None:
    """Each names the file and what to do, and never the content of a key."""
    pair = issuer.issue("server")
    empty = tmp_path / "empty"
    empty.write_text("nothing")
    problems: dict[str, dict[str, object]] = {
        "missing": {"certificate": str(tmp_path / "absent.pem")},
        "not pem": {"key": str(empty)},
        "other key": {"key": str(issuer.issue("other").key)},
        "no key": {"key": None},
        "no cas": {"clientauth": "require-any-client-cert"},
        "bad cas": {"clientcas": [str(empty)]},
    }
    with pytest.raises(TlsProblem, match=words) as caught:
        load_context(section(pair, **problems[what]))
    assert "PRIVATE KEY" not in str(caught.value)


async def test_a_reload_that_fails_keeps_what_serves(issuer: Authority) -> None:
    """The swap happens when everything has loaded, and not before."""
    pair = issuer.issue("server")
    context = TlsContext(section(pair), warn=lambda _: None)
    with pytest.raises(TlsProblem):
        _ = context.current
    await context.load()
    serving_now = context.current
    pair.certificate.write_text("-----BEGIN CERTIFICATE-----\nnothing")
    with pytest.raises(TlsProblem):
        await context.load()
    assert context.current is serving_now


async def test_an_expired_certificate_is_told(issuer: Authority) -> None:
    """It serves, because a clock may be wrong; the operator hears of it."""
    started = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=40)
    heard: list[str] = []
    context = TlsContext(section(issuer.issue("old", days=10, started=started)), warn=heard.append)
    await context.load()
    assert len(heard) == 1
    assert "expired on" in heard[0]


async def test_new_connections_get_the_new_certificate(issuer: Authority) -> None:
    """After a reload: old connections go on, new ones see the new certificate; both count."""
    first, second = issuer.issue("first"), issuer.issue("second")
    settings = ServerSettings(tls=section(first))
    async with serving(settings) as served:
        old = await served.connect(trusting(issuer))
        await served.service.reload(ServerSettings(tls=section(second), addr=settings.addr))
        new = await served.connect(trusting(issuer))
        assert (await old.ask("/v2/")).status == (await new.ask("/v2/")).status == 200
        seen = [client.writer.get_extra_info("ssl_object").getpeercert() for client in (old, new)]
        assert [str(one["subject"]).count("first") for one in seen] == [1, 0]
        assert served.count("tls_reloads_total", result="loaded") == 1


async def test_a_bad_reload_is_counted_and_serves_on(issuer: Authority, tmp_path: Path) -> None:
    """A file that is gone: TlsProblem for the caller, a metric, and the old certificate."""
    pair = issuer.issue("server")
    async with serving(ServerSettings(tls=section(pair))) as served:
        absent = section(pair, certificate=str(tmp_path / "absent.pem"))
        with pytest.raises(TlsProblem):
            await served.service.reload(ServerSettings(tls=absent))
        assert (await (await served.connect(trusting(issuer))).ask("/v2/")).status == 200
        assert served.count("tls_reloads_total", result="failed") == 1


async def test_a_handshake_that_never_comes_is_given_up(issuer: Authority) -> None:
    """Whoever connects and says nothing, or no TLS, is closed in the time for headers and counted."""
    limits = Limits(header_timeout=0.1)
    async with serving(ServerSettings(tls=section(issuer.issue("server")), limits=limits)) as served:
        silent, plain = await served.connect(), await served.connect()
        await plain.send("GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        await plain.rest()
        assert await silent.rest() == b""
        await until(lambda: served.count("connections_refused_total", reason="tls") == 2)
        assert served.service.addresses
        assert served.count("connections") == 0


async def test_without_a_client_certificate_there_is_no_connection(issuer: Authority) -> None:
    """clientcas: a client that shows its certificate is served, one that does not is counted and closed."""
    settings = ServerSettings(
        tls=section(issuer.issue("server"), clientcas=[str(issuer.bundle)], minimumtls="tls1.2")
    )
    async with serving(settings) as served:
        with_one = await served.connect(trusting(issuer, issuer.issue("client")))
        assert (await with_one.ask("/v2/")).status == 200
        context = trusting(issuer)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await served.connect(context)
        assert served.count("connections_refused_total", reason="tls") == 1
