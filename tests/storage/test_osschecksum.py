"""The CRC-64 of a whole from those of its parts is that of the whole, as the SDK computes it."""

from hypothesis import given
from hypothesis import strategies as st

from msrcache.storage.osschecksum import crc_of
from msrcache.storage.ossclient import Crc


def crc(data: bytes) -> int:
    """By the SDK."""
    made = Crc()
    made.update(memoryview(data))
    return made.value


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_a_whole_from_its_parts(parts: list[bytes]) -> None:
    """Whatever the parts are, empty ones too."""
    assert crc_of((crc(part), len(part)) for part in parts) == crc(b"".join(parts))


def test_the_check_value_of_the_standard() -> None:
    """CRC-64/XZ of 123456789, taken apart in two."""
    assert crc_of([(crc(b"1234"), 4), (crc(b"56789"), 5)]) == 0x995DC9BBDF1939FA
