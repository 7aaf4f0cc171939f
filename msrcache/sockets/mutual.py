"""TLS between replicas: both ends show a certificate that the fleet's own authority signed.

Names in the certificates do not matter: replicas come and go with their addresses, and whoever has a certificate of
that authority is one of them. Files are read in a thread; a set that does not load leaves the contexts as they are.
"""

import asyncio
import ssl
from collections.abc import Sequence


class MutualTlsProblem(Exception):
    """The files cannot be used: one sentence that names them and says what to do."""


class MutualTls:
    """The contexts of both ends. `load` them before they are used, and again when the files have changed."""

    def __init__(self, certificate: str, key: str, authorities: Sequence[str], *, named: str) -> None:
        """`named` is where the operator wrote this, for errors."""
        self._certificate = certificate
        self._key = key
        self._authorities = authorities
        self._named = named
        self._contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None = None

    @property
    def current(self) -> ssl.SSLContext:
        """What connections are accepted with."""
        return self._both()[0]

    @property
    def client(self) -> ssl.SSLContext:
        """What connections are opened with."""
        return self._both()[1]

    async def load(self) -> None:
        """Read the files. Raises MutualTlsProblem and keeps what was there."""
        self._contexts = await asyncio.to_thread(self._read)

    def _both(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        if self._contexts is None:
            raise MutualTlsProblem(f"{self._named} has not been loaded")
        return self._contexts

    def _read(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        return self._context(ssl.PROTOCOL_TLS_SERVER), client

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.verify_mode = ssl.CERT_REQUIRED
        for path in self._authorities:
            try:
                context.load_verify_locations(cafile=path)
            except (OSError, ssl.SSLError) as cause:
                raise MutualTlsProblem(f"{self._named}.ca: cannot load {path}: {_reason(cause)}") from cause
        try:
            # A key with a passphrase would ask for it on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (OSError, ssl.SSLError, ValueError) as cause:
            raise MutualTlsProblem(
                f"{self._named}: {self._certificate} and {self._key} do not load ({_reason(cause)}): both must be"
                " readable PEM, the key unencrypted, and belong together"
            ) from cause
        return context


def _reason(cause: Exception) -> str:
    return str(getattr(cause, "reason", None) or getattr(cause, "strerror", None) or type(cause).__name__)
