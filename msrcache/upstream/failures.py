"""Why there is no answer, in words for the person at night. Pure: exceptions of the HTTP client in, our own out."""

import ssl
from collections.abc import Mapping
from typing import Final

import aiohttp
from yarl import URL

from msrcache.oci.errors import RegistryError, UpstreamBroken, UpstreamUnavailable
from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError

_ADVICE: Final[Mapping[int, str]] = {
    9: "is this machine's clock right?",  # X509_V_ERR_CERT_NOT_YET_VALID
    10: "have it renewed; if it is not that old, this machine's clock is wrong",  # X509_V_ERR_CERT_HAS_EXPIRED
    62: "ask the upstream by a name that is in its certificate",  # X509_V_ERR_HOSTNAME_MISMATCH
    64: "ask the upstream by a name that is in its certificate",  # X509_V_ERR_IP_ADDRESS_MISMATCH
}
"""OpenSSL's verdicts for which giving a CA would be the wrong advice."""


def failed(url: URL, error: Exception, *, settings: UpstreamSettings, known: str | None) -> RegistryError:
    """What it means that a request to `url` ended so; `known` is the upstream's own host.

    An outage is UpstreamUnavailable, an answer that is no HTTP UpstreamBroken. Nothing of what was sent or
    received is quoted: it may hold a credential.
    """
    where = f"{url.host}:{url.port}"
    what = f"the upstream {where}" if url.host == known else f"{where}, where {settings.name} sent us,"
    if isinstance(error, aiohttp.InvalidURL):
        return UpstreamBroken(f"the upstream {settings.name} sent us to an address that is no URL")
    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError):
        return UpstreamBroken(f"{what} gave an answer that is no proper HTTP")
    why = _unconnected(error) or _unanswered(error, settings)
    return UpstreamUnavailable(f"{what} {why}", retry_after=None)


def _unconnected(error: Exception) -> str | None:
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"can't be reached: the proxy says {error.status}"
        case aiohttp.ClientProxyConnectionError():
            return f"lies behind a proxy that can't be reached: {_system(error.os_error)}"
        case aiohttp.ClientConnectorDNSError():
            return f"can't be found by its name: {_system(error.os_error)}; look at the name and at this machine's DNS"
        case aiohttp.ClientConnectorCertificateError():
            return f"shows a certificate that is refused: {_verdict(error.certificate_error)}"
        case aiohttp.ClientConnectorSSLError():
            return f"does not complete the TLS handshake: {_system(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return f"can't be reached: {_system(error.os_error)}"
    return None


def _unanswered(error: Exception, settings: UpstreamSettings) -> str:
    match error:
        case aiohttp.ConnectionTimeoutError():
            return f"took no connection within {settings.connect_timeout:g} s"
        case TimeoutError():
            return f"gave no answer within {settings.header_timeout:g} s"
        case UpstreamSettingsError():
            return f"can't be asked: {error}"
    return f"broke the connection before it answered ({type(error).__name__})"


def _system(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "handshake failed"
    return error.strerror or type(error).__name__


def _verdict(error: Exception) -> str:
    """Why, and what to do."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"it does not match; {_ADVICE[62]}"
    advice = _ADVICE.get(error.verify_code, "give the CA that signed it in `ca`")
    return f"{error.verify_message.rstrip('.')}; {advice}"
