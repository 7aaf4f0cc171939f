"""Durations, sizes, numbers and booleans are read as Go and YAML 1.1 mean them, or refused with words."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.config.units import (
    LONGEST,
    format_duration,
    format_size,
    parse_duration,
    parse_flag,
    parse_size,
    parse_whole,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86400.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("300ms", 0.3),
        ("10us", 0.00001),
        ("10µs", 0.00001),
        ("0", 0.0),
        ("0s", 0.0),
        ("60", 6e-8),
        ("5000000000", 5.0),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    """Compound, fractions, and a bare integer as nanoseconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "1.5", "5 m", "1d", "h", "-5s", "1h30", "s1", "٣s", "010", "1e3s", "9" * 40 + "h"]
)
def test_a_duration_that_go_refuses_is_refused(text: str) -> None:
    """Never a guess: no unit on a fraction, no days, no sign."""
    with pytest.raises(ValueError, match="should"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1048576),
        ("10GiB", 10 * 2**30),
        ("512MB", 512_000_000),
        ("1.5KiB", 1536),
        ("4 KiB", 4096),
        ("1kB", 1000),
        ("7B", 7),
        ("2G", 2_000_000_000),
        ("2Gi", 2 * 2**30),
    ],
)
def test_a_size_has_decimal_and_binary_units(text: str, size: int) -> None:
    """GB is a power of 1000, GiB of 1024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.5", "1.5B", "10 G B", "1XB", "99999999PiB"])
def test_a_size_without_sense_is_refused(text: str) -> None:
    """No sign, no fraction of a byte, no unknown unit, nothing beyond 63 bits."""
    with pytest.raises(ValueError, match="should"):
        parse_size(text)


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "yes", "on", "y"])
def test_every_yes_of_yaml_1_1_is_true(text: str) -> None:
    """Docker Registry's YAML reads them so."""
    assert parse_flag(text) is True


@pytest.mark.parametrize("text", ["false", "no", "OFF", "n"])
def test_every_no_of_yaml_1_1_is_false(text: str) -> None:
    """Docker Registry's YAML reads them so."""
    assert parse_flag(text) is False


@pytest.mark.parametrize("text", ["", "1", "0", "maybe"])
def test_no_other_word_is_a_boolean(text: str) -> None:
    """Numbers and guesses are refused."""
    with pytest.raises(ValueError, match="should be true or false"):
        parse_flag(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0777", "octal"),
        ("1:30", "base 60"),
        ("-1", "0 or more"),
        ("1_000", "decimal"),
        ("0x1F", "decimal"),
        ("", "whole"),
    ],
)
def test_a_number_in_a_disguise_of_yaml_1_1_is_refused(text: str, words: str) -> None:
    """Octal and sexagesimal spellings are named as what they are."""
    with pytest.raises(ValueError, match=words):
        parse_whole(text)


@given(st.integers(min_value=0, max_value=2**48))
def test_a_duration_comes_back_as_it_was_written(nanoseconds: int) -> None:
    """parse(format(x)) == x, to the nanosecond, for days."""
    text = format_duration(nanoseconds / 10**9)
    assert round(parse_duration(text) * 10**9) == nanoseconds


@given(st.integers(min_value=0, max_value=LONGEST))
def test_a_size_comes_back_as_it_was_written(size: int) -> None:
    """parse(format(x)) == x."""
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=40), st.sampled_from([parse_duration, parse_size, parse_whole, parse_flag]))
def test_no_text_raises_anything_but_value_error(text: str, parse: object) -> None:
    """The readers of units are total."""
    assert callable(parse)
    with contextlib.suppress(ValueError):
        assert parse(text) >= 0
