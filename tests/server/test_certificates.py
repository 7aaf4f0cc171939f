"""server.certificates: when a certificate is valid."""

import datetime
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from msrcache.server.certificates import lifetime_problem, validity
from tests.stage.certificates import authority


def test_the_dates_are_those_of_the_certificate(tmp_path: Path) -> None:
    """Read from the DER as cryptography reads them."""
    pair = authority(tmp_path).issue("server")
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    begins, ends = validity(certificate.public_bytes(Encoding.DER))
    assert (begins, ends) == (certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def test_problems_are_told_in_words(tmp_path: Path) -> None:
    """Valid: nothing; expired and not yet valid: the date; no certificate at all: not this module's business."""
    path = authority(tmp_path).issue("server", days=30).certificate
    now = datetime.datetime.now(datetime.UTC)
    assert lifetime_problem(path) is None
    assert (lifetime_problem(path, now + datetime.timedelta(days=60)) or "").startswith("expired on 20")
    early = lifetime_problem(path, now - datetime.timedelta(days=60)) or ""
    assert early.startswith("is not valid before 20")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    assert lifetime_problem(nothing) is None
    nothing.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert lifetime_problem(nothing) is None


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever comes: dates or ValueError."""
    with suppress(ValueError):
        validity(data)
