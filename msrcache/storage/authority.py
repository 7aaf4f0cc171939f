"""What every store over TLS says of the authority that it is to trust: wrong ones at the start, none with a warning."""

import ssl
from collections.abc import Callable

from msrcache.storage.parameters import ParameterError
from msrcache.telemetry.logs import get_logger

log = get_logger(__name__)


def into_default(path: str) -> None:
    """Trust an authority beside those of the system. Raises SSLError, OSError."""
    ssl.create_default_context().load_verify_locations(path)


def check_authority(driver: str, path: str, trust: Callable[[str], object] = into_default) -> None:
    """Raises ParameterError where `trust` cannot take the file."""
    try:
        trust(path)
    except ssl.SSLError:
        raise ParameterError(f"storage.{driver}.ca: {path} holds no PEM certificate") from None
    except OSError as error:
        raise ParameterError(f"storage.{driver}.ca: {path} cannot be read: {error.strerror}") from error


def warn_unverified(driver: str, parameter: str = "skipverify") -> None:
    """Nobody turns this on without being told what it means."""
    text = (
        f"storage.{driver}.{parameter} is on: whoever can reach the network between here and the service can read and"
        f" change everything that is stored; give the authority as storage.{driver}.ca instead"
    )
    log.warning(text)
