"""TLS on the main listener: a fresh context is loaded whole, then swapped; connections keep the one they
began with.

Files are read in a thread. A set of files that does not load leaves the context that serves now as it is.
"""

import asyncio
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msrcache.config.http import TlsSection
from msrcache.server.certificates import lifetime_problem

VERSIONS: Final = {
    "tls1.0": ssl.TLSVersion.TLSv1,
    "tls1.1": ssl.TLSVersion.TLSv1_1,
    "tls1.2": ssl.TLSVersion.TLSv1_2,
    "tls1.3": ssl.TLSVersion.TLSv1_3,
}
OLD: Final = ("tls1.0", "tls1.1")
DEFAULT_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class TlsProblem(Exception):
    """The TLS section cannot be served: one sentence that names the file and what to do."""


def load_context(section: TlsSection) -> ssl.SSLContext:
    """A context with everything of the section in it. Reads files: not for the loop. Raises TlsProblem."""
    if section.certificate is None or section.key is None:
        raise TlsProblem("http.tls needs both certificate and key: give the other one too")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _set_versions(context, section)
    _load_chain(context, section.certificate, section.key)
    _ask_for_client(context, section)
    return context


def _set_versions(context: ssl.SSLContext, section: TlsSection) -> None:
    ciphers = section.openssl_ciphers or DEFAULT_CIPHERS
    if section.minimum_tls in OLD:  # OpenSSL 3 speaks them at security level 0 only
        ciphers = f"{ciphers}:ECDHE+AES@SECLEVEL=0"
    with warnings.catch_warnings():  # Python warns of the old versions, which the operator has chosen
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = VERSIONS[section.minimum_tls]
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as cause:
        raise TlsProblem(f"http.tls.ciphersuites: OpenSSL has none of these suites ({ciphers})") from cause


def _load_chain(context: ssl.SSLContext, certificate: str, key: str) -> None:
    for path, name in ((certificate, "certificate"), (key, "key")):
        try:
            text = Path(path).read_text(encoding="ascii", errors="replace")
        except OSError as cause:
            reason = cause.strerror or type(cause).__name__
            raise TlsProblem(f"http.tls.{name}: cannot read {path}: {reason}") from cause
        if "-----BEGIN" not in text:
            raise TlsProblem(f"http.tls.{name}: {path} holds no PEM block: convert it to PEM")
    try:
        # A key with a passphrase would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as cause:
        reason = getattr(cause, "reason", None) or "not readable"
        raise TlsProblem(
            f"http.tls: {certificate} and {key} do not load ({reason}): the key must be unencrypted PEM"
            " and belong to the first certificate of the file"
        ) from cause


def _ask_for_client(context: ssl.SSLContext, section: TlsSection) -> None:
    wanted = section.client_auth or ("require-and-verify-client-cert" if section.client_cas else None)
    if wanted is None or wanted == "request-client-cert":
        return  # a certificate that is only requested decides nothing here
    if not section.client_cas:
        raise TlsProblem(f"http.tls.clientauth: {wanted} needs http.tls.clientcas to check certificates by")
    for path in section.client_cas:
        try:
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as cause:
            reason = getattr(cause, "reason", None) or getattr(cause, "strerror", None)
            raise TlsProblem(f"http.tls.clientcas: cannot load {path}: {reason}") from cause
    optional = wanted == "verify-client-cert-if-given"
    context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED


class TlsContext:
    """The context that new connections get; `reload` swaps it when the files load, and only then."""

    def __init__(self, section: TlsSection, *, warn: Callable[[str], None]) -> None:
        self._section = section
        self._warn = warn
        self._current: ssl.SSLContext | None = None

    @property
    def current(self) -> ssl.SSLContext:
        if self._current is None:
            raise TlsProblem("http.tls has not been loaded")
        return self._current

    async def load(self, section: TlsSection | None = None) -> None:
        """Load the files anew, of another section where given. Raises TlsProblem and keeps what serves."""
        section = section or self._section
        context, problem = await asyncio.to_thread(self._read, section)
        self._section, self._current = section, context
        if problem:
            self._warn(
                f"http.tls.certificate: {section.certificate} {problem}: clients will refuse it; put a valid one there"
                " and send SIGHUP, or set this machine's clock if that is wrong"
            )

    @staticmethod
    def _read(section: TlsSection) -> tuple[ssl.SSLContext, str | None]:
        context = load_context(section)
        return context, lifetime_problem(Path(section.certificate or ""))
