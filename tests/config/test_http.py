"""The listener's section, as Docker Registry spells it."""

import ssl

import pytest

from msrcache.config.http import CIPHER_SUITES, HttpSection, TlsSection
from tests.config.files import loaded, refusal


def test_the_sample_of_the_replaced_cache_is_read() -> None:
    """Address, secret, host, TLS."""
    text = """\
http:
  addr: 0.0.0.0:443
  secret: generate-random-secret
  host: https://cache.example.com
  draintimeout: 2m
  headers: {X-Content-Type-Options: [nosniff]}
  tls: {certificate: /certs/cache.cert.pem, key: /certs/cache.key.pem}
  debug: {addr: "localhost:5001", prometheus: {enabled: true, path: /m}}
"""
    http = loaded(text).config.http
    assert http.addr == "0.0.0.0:443"
    assert http.secret is not None
    assert http.secret.get_secret_value() == "generate-random-secret"
    assert http.drain_timeout == 120
    assert http.headers == {"X-Content-Type-Options": ("nosniff",)}
    assert http.tls.enabled
    assert (http.debug.addr, http.debug.prometheus.path) == ("localhost:5001", "/m")


def test_the_defaults_are_plain_http_that_drains() -> None:
    """Docker Registry would not drain at all."""
    http = HttpSection()
    assert (http.addr, http.net, http.drain_timeout, http.tls.enabled) == (":5000", "tcp", 60.0, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{net: udp}", "should be tcp or unix"),
        ("{prefix: registry}", "begin and end with a slash"),
        ("{host: cache.example.com}", "should begin with https://"),
        ("{tls: {minimumtls: tls1.4}}", "tls1.0, tls1.1, tls1.2 or tls1.3"),
        ("{tls: {ciphersuites: [ECDHE-RSA-AES128-SHA]}}", "a cipher suite by Go's name"),
        ("{tls: {clientauth: maybe}}", "request-client-cert"),
        ("{headers: [a]}", "should be a map of keys"),
        ("{draintimeout: -1s}", "should not be negative"),
    ],
)
def test_wrong_values_are_refused(text: str, words: str) -> None:
    """With what would be right."""
    assert words in str(refusal(f"http: {text}"))


def test_every_cipher_suite_is_known_to_openssl() -> None:
    """Each of Go's names, translated, can be set on a context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, translated in CIPHER_SUITES.items():
        if not translated.startswith("TLS_"):
            context.set_ciphers(TlsSection(cipher_suites=(name,)).openssl_ciphers + ":@SECLEVEL=0")


def test_suites_of_tls_1_3_are_left_to_the_context() -> None:
    """OpenSSL has them on by itself and takes them elsewhere."""
    assert TlsSection(cipher_suites=("TLS_AES_128_GCM_SHA256",)).openssl_ciphers == ""
