"""The `http:` section of config.yml, as Docker Registry spells it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, SecretStr

from msrcache.config.fields import (
    FilePath,
    Flag,
    Headers,
    Lowercase,
    OptionalAddress,
    OptionalUrl,
    Seconds,
    Section,
    without_effect,
)

CIPHER_SUITES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
        "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
        "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
        "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "TLS_AES_128_GCM_SHA256": "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384": "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256": "TLS_CHACHA20_POLY1305_SHA256",
    }
)
"""Go's name of a cipher suite -> OpenSSL's."""


def _cipher_suite(name: str) -> str:
    if name not in CIPHER_SUITES:
        raise ValueError(
            "should be a cipher suite by Go's name, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
        )
    return name


def _prefix(text: str) -> str:
    if text and (not text.startswith("/") or not text.endswith("/")):
        raise ValueError("should begin and end with a slash, such as /registry/")
    return text


class TlsSection(Section):
    """TLS on the main listener; on when certificate and key are given. Both are read again on SIGHUP."""

    certificate: FilePath | None = None
    """PEM file with the certificate and its chain."""
    key: FilePath | None = None
    """PEM file with the private key."""
    client_cas: tuple[FilePath, ...] = ()
    """PEM files; when given, a client must show a certificate that one of them signed."""
    client_auth: (
        Literal[
            "request-client-cert",
            "require-any-client-cert",
            "verify-client-cert-if-given",
            "require-and-verify-client-cert",
        ]
        | None
    ) = None
    """How client certificates are asked for; empty: required and verified where clientcas is given."""
    minimum_tls: Literal["tls1.0", "tls1.1", "tls1.2", "tls1.3"] = "tls1.2"
    """The oldest protocol version that is accepted."""
    cipher_suites: tuple[Annotated[str, AfterValidator(_cipher_suite)], ...] = ()
    """Go's names; empty: OpenSSL's own choice of ECDHE suites with AES-GCM and ChaCha20."""
    letsencrypt: Any = without_effect("certificates are not fetched here: give tls.certificate and tls.key")

    @property
    def enabled(self) -> bool:
        return self.certificate is not None and self.key is not None

    @property
    def openssl_ciphers(self) -> str:
        """The suites below TLS 1.3 as SSLContext.set_ciphers takes them; empty = leave the context's own."""
        return ":".join(
            CIPHER_SUITES[name] for name in self.cipher_suites if not CIPHER_SUITES[name].startswith("TLS_")
        )


class PrometheusSection(Section):
    """Metrics on the debug listener, as Docker Registry has them."""

    enabled: Flag = False
    """Metrics on the debug listener."""
    path: str = "/metrics"
    """Their path there."""


class DebugSection(Section):
    """A second listener, plain HTTP, for health, metrics and the fills under way."""

    addr: OptionalAddress = ""
    """host:port of the second listener; empty: none."""
    prometheus: PrometheusSection = PrometheusSection()


class HttpSection(Section):
    """The main listener."""

    addr: str = ":5000"
    """host:port to listen on; with `net: unix` the path of the socket."""
    net: Annotated[Literal["tcp", "unix"], Lowercase] = "tcp"
    """tcp or unix."""
    prefix: Annotated[str, AfterValidator(_prefix)] = ""
    """Path that stands before v2/; begins and ends with a slash."""
    host: OptionalUrl = ""
    """The external URL of this cache, where the request does not tell it."""
    secret: SecretStr | None = None
    """What replicas sign with among each other; equal on all. Empty: a random one for this process."""
    relative_urls: Flag = False
    """Links to further pages (tags/list, _catalog) name no host, even where `host` is set."""
    drain_timeout: Seconds = 60.0
    """How long bodies may still flow after SIGTERM; 0: they are cut at once."""
    tls: TlsSection = TlsSection()
    debug: DebugSection = DebugSection()
    headers: Headers = Field(default_factory=dict)
    """Headers added to every answer: name -> list of values."""
    http2: Any = without_effect("answers are always HTTP/1.1")
    h2c: Any = without_effect("answers are always HTTP/1.1")
