"""Waits grow, are spread by chance, and are what the upstream asked for where it asked."""

import email.utils

import pytest

from msrcache.upstream.retry import jittered, parse_retry_after


def test_waits_double_and_are_bounded() -> None:
    """Full jitter: from nothing to a bound that doubles, up to five seconds."""
    assert [jittered(0.25, n, lambda: 1.0) for n in (1, 2, 3, 9, 999)] == [0.25, 0.5, 1.0, 5.0, 5.0]
    assert jittered(0.25, 3, lambda: 0.0) == 0.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-1", None),
        ("9" * 40, 999_999_999.0),
        ("٣", None),
    ],
)
def test_retry_after_in_seconds(text: str | None, seconds: float | None) -> None:
    """A number counts; nonsense is as if nothing was said."""
    assert parse_retry_after(text, 0.0) == seconds


def test_retry_after_as_a_date() -> None:
    """A date is a distance from now, never negative."""
    now = 1_700_000_000.0
    assert parse_retry_after(email.utils.formatdate(now + 90, usegmt=True), now) == 90
    assert parse_retry_after(email.utils.formatdate(now - 90, usegmt=True), now) == 0
