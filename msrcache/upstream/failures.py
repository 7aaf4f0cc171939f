"""Why there is no answer, in words for the person at night. Pure: exceptions of the HTTP client in, our own out."""

import ssl

import aiohttp
from yarl import URL

from msrcache.oci.errors import RegistryError, UpstreamBroken, UpstreamUnavailable
from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError


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
            return f"can't be found by its name: {_system(error.os_error)}"
        case aiohttp.ClientConnectorCertificateError():
            return f"shows a certificate that is refused ({_verdict(error.certificate_error)}); give its CA in `ca`"
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
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else "it does not match"
