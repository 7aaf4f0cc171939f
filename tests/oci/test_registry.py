"""The values that a Registry gives."""

from dataclasses import replace

from msrcache.oci.descriptor import OCI_MANIFEST, Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.registry import Answer, Elsewhere, FileSpan, Manifest, Outcome, Resolution

EMPTY = Descriptor(OCI_MANIFEST, Digest.of(b""), 0)


def test_outcomes_are_the_words_of_the_access_log() -> None:
    """The six words; an Outcome is its text wherever text is wanted."""
    assert [str(outcome) for outcome in Outcome] == ["hit", "miss", "joined", "followed", "stale", "pass"]
    assert f"{Outcome.HIT}" == "hit"


def test_a_signed_address_is_not_shown() -> None:
    """A presigned URL is a key to the content, so repr hides it."""
    assert "signature" not in repr(Elsewhere("https://bucket/key?signature=1"))


def test_bodies_are_not_shown() -> None:
    """The repr of an answer is a line, whatever it carries."""
    assert "payload" not in repr(Manifest(EMPTY, b"payload", Outcome.HIT))
    assert "payload" not in repr(Answer(200, {}, b"payload"))


def test_values_are_values() -> None:
    """They compare, and may be copied with another outcome."""
    stale = replace(Resolution(EMPTY, Outcome.HIT), outcome=Outcome.STALE)
    assert stale == Resolution(EMPTY, Outcome.STALE)
    assert FileSpan(3, 0, 4) == FileSpan(fd=3, start=0, stop=4)
