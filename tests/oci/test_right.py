"""Credentials and the cache's own right."""

from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository
from msrcache.oci.pulls import BlobPull
from msrcache.oci.right import SERVICE, Credential


def test_a_credential_is_never_shown() -> None:
    """Neither repr nor str nor the repr of what holds it tells the header."""
    credential = Credential("Basic c2VjcmV0")
    for text in (repr(credential), str(credential), f"{credential}", repr([credential])):
        assert "c2VjcmV0" not in text
        assert "Basic" not in text


def test_anonymous_and_logged_in_differ() -> None:
    """The repr still tells whether there was a credential, and equality compares what was sent."""
    assert repr(Credential()) == "Credential(anonymous)"
    assert repr(Credential("x")) == "Credential(…)"
    assert Credential("a") == Credential("a") != Credential("b")


async def test_the_cache_itself_asks_nobody() -> None:
    """SERVICE is admitted at once, was confirmed by nobody, and uses the service account."""
    pull = BlobPull(repository=Repository("a"), digest=Digest.of(b""))
    SERVICE.granted(pull.repository)
    assert SERVICE.credential is None
    assert not SERVICE.graced
    assert await SERVICE.ask(pull) is False
    assert await SERVICE.ask(pull, unreachable=True) is False
