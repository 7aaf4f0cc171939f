"""Why there is no answer, in words, with the host and without what was sent."""

import errno
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from msrcache.oci.errors import RegistryError, UpstreamBroken, UpstreamUnavailable
from msrcache.upstream.failures import failed
from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError

SETTINGS = UpstreamSettings(url="https://reg.example", connect_timeout=5, header_timeout=30)
HOME = URL("https://reg.example/v2/secret?token=secret")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (aiohttp.ConnectionTimeoutError(), UpstreamUnavailable, "took no connection within 5 s"),
        (TimeoutError(), UpstreamUnavailable, "gave no answer within 30 s"),
        (aiohttp.ServerDisconnectedError(), UpstreamUnavailable, "broke the connection before it answered"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), UpstreamUnavailable, "broke the connection"),
        (UpstreamSettingsError("HTTP_PROXY is wrong"), UpstreamUnavailable, "HTTP_PROXY is wrong"),
        (aiohttp.InvalidURL("http://secret"), UpstreamBroken, "no URL"),
    ],
)
def test_words(error: Exception, kind: type[RegistryError], words: str) -> None:
    """Each failure is one sentence that names the upstream and quotes nothing."""
    found = failed(HOME, error, settings=SETTINGS, known="reg.example")
    assert type(found) is kind
    assert words in found.message
    assert "reg.example" in found.message
    assert "secret" not in found.message


def test_another_host_is_named_as_such() -> None:
    """Where the upstream sent us is not the upstream."""
    found = failed(
        URL("https://bucket.example/k?sig=secret"), TimeoutError(), settings=SETTINGS, known="reg.example"
    )
    assert found.message.startswith("bucket.example:443, where reg.example sent us, gave no answer")


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (9, "clock right"),
        (10, "have it renewed"),
        (18, "give the CA that signed it in `ca`"),
        (20, "give the CA that signed it in `ca`"),
        (62, "by a name that is in its certificate"),
        (64, "by a name that is in its certificate"),
    ],
)
def test_each_verdict_on_a_certificate_has_its_own_advice(code: int, advice: str) -> None:
    """An expired certificate is not helped by another CA."""
    verdict = ssl.SSLCertVerificationError()
    verdict.verify_code, verdict.verify_message = code, "it is so"
    key = ConnectionKey(
        "reg.example", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
    )
    error = aiohttp.ClientConnectorCertificateError(key, verdict)
    message = failed(HOME, error, settings=SETTINGS, known="reg.example").message
    assert "refused: it is so; " in message
    assert advice in message
