"""TLS towards upstreams: the system's authorities and the operator's, and who we say we are.

Files are read here and now, so this is for the start and for reloads, never for the path of a pull.
"""

import ssl
from pathlib import Path

from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError


def tls_context(settings: UpstreamSettings, *, ours: bool) -> ssl.SSLContext:
    """A context for the upstream itself (`ours`: with the client certificate) or for hosts it sends us to.

    Raises UpstreamSettingsError with the file's name and what is wrong with it.
    """
    context = ssl.create_default_context()
    for path in settings.ca:
        _trust(context, path, settings.name)
    if settings.skipverify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ours and settings.certificate is not None:
        _present(context, settings.certificate, settings.key, settings.name)
    return context


def _trust(context: ssl.SSLContext, path: Path, upstream: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except FileNotFoundError:
        raise UpstreamSettingsError(
            f"the CA file {path} for the upstream {upstream} does not exist; put the PEM there or correct the path"
        ) from None
    except ssl.SSLError:
        raise UpstreamSettingsError(
            f"the CA file {path} for the upstream {upstream} holds no PEM certificate"
        ) from None
    except OSError as error:
        raise UpstreamSettingsError(
            f"the CA file {path} for the upstream {upstream} can't be read: {error.strerror}"
        ) from None


def _present(context: ssl.SSLContext, certificate: Path, key: Path | None, upstream: str) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        raise UpstreamSettingsError(
            f"the client certificate {certificate} with the key {key} for the upstream {upstream} can't be used:"
            f" {error.reason or error}; both must be PEM, the key without a password, and belong together"
        ) from None
    except OSError as error:
        raise UpstreamSettingsError(
            f"the client certificate {certificate} with the key {key} for the upstream {upstream} can't be read:"
            f" {error.strerror}"
        ) from None


def _no_password() -> str:
    # Without this OpenSSL would ask at the terminal and the start would hang there.
    return ""
