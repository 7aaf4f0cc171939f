"""The CRC-64 of OSS, of pieces whose CRC-64s are known (pure).

The service tells the CRC-64 (ECMA-182, reflected, as in xz) of each part and of each object. That of an object follows
from those of its parts and their sizes, so an object's bytes are compared without being read, and none are hashed here
twice. Not here: that of bytes (the SDK's own, `ossclient`).
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

POLYNOMIAL: Final = 0xC96C5795D7870F42
"""Reflected: the highest bit is x to the power 0."""
ONE: Final = 1 << 63


def crc_of(parts: Iterable[tuple[int, int]]) -> int:
    """Of all bytes: `parts` are (CRC-64, size) in order."""
    whole = 0
    for crc, size in parts:
        whole = _times(whole, _power(size)) ^ crc
    return whole


@lru_cache(maxsize=64)
def _power(size: int) -> int:
    """x to the power 8 * size, modulo the polynomial: what so many bytes more do to a CRC."""
    power, square, exponent = ONE, ONE >> 1, size * 8
    while exponent:
        if exponent & 1:
            power = _times(power, square)
        square, exponent = _times(square, square), exponent >> 1
    return power


def _times(left: int, right: int) -> int:
    """The product modulo the polynomial."""
    product, bit = 0, ONE
    while bit:
        if left & bit:
            product ^= right
        right = (right >> 1) ^ POLYNOMIAL if right & 1 else right >> 1
        bit >>= 1
    return product
