"""Whom we trust and who we say we are: read at the start, with a sentence for every file that is wrong."""

import ssl
from pathlib import Path

import pytest

from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError
from msrcache.upstream.trust import tls_context
from tests.stage.certificates import authority


def test_added_to_the_systems(tmp_path: Path) -> None:
    """The operator's authorities stand beside the system's, they do not replace them."""
    ca = authority(tmp_path)
    plain = tls_context(UpstreamSettings(url="https://x"), ours=True)
    more = tls_context(UpstreamSettings(url="https://x", ca=(ca.bundle,)), ours=True)
    assert more.cert_store_stats()["x509"] == plain.cert_store_stats()["x509"] + 1
    assert more.verify_mode == ssl.CERT_REQUIRED
    assert more.check_hostname


def test_skipverify_verifies_nothing() -> None:
    """As the operator said."""
    context = tls_context(UpstreamSettings(url="https://x", skipverify=True), ours=False)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    ("text", "words"), [(None, "does not exist; put the PEM there"), ("no certificate", "holds no PEM")]
)
def test_a_bad_ca(tmp_path: Path, text: str | None, words: str) -> None:
    """The file and what is wrong with it."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UpstreamSettingsError, match=words) as caught:
        tls_context(UpstreamSettings(url="https://x", ca=(path,)), ours=True)
    assert str(path) in str(caught.value)


def test_a_folder_for_a_ca(tmp_path: Path) -> None:
    """Whatever the system says about it."""
    with pytest.raises(UpstreamSettingsError, match=str(tmp_path)):
        tls_context(UpstreamSettings(url="https://x", ca=(tmp_path,)), ours=True)


def test_a_bad_client_certificate(tmp_path: Path) -> None:
    """Missing, or a key that belongs to another one."""
    ca = authority(tmp_path)
    one, other = ca.issue("one"), ca.issue("other")
    for certificate, key, words in (
        (tmp_path / "none.pem", one.key, "can't be read"),
        (one.certificate, other.key, "belong together"),
    ):
        settings = UpstreamSettings(url="https://x", certificate=certificate, key=key)
        with pytest.raises(UpstreamSettingsError, match=words):
            tls_context(settings, ours=True)
        tls_context(settings, ours=False)
