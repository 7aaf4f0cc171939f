"""When a certificate is valid: the two dates of its first PEM block, read from the DER without a third party.

Nothing is verified here; this only finds what a person should be told before clients find it.
"""

import ssl
from datetime import UTC, datetime
from pathlib import Path

TAG_CONTEXT_0, TAG_UTC_TIME, TAG_GENERAL_TIME = 0xA0, 0x17, 0x18


def _element(data: bytes, offset: int) -> tuple[int, int, int]:
    """(tag, start of the content, end of the content) of the DER element at `offset`."""
    tag, length, start = data[offset], data[offset + 1], offset + 2
    if length & 0x80:
        width = length & 0x7F
        length, start = int.from_bytes(data[start : start + width], "big"), start + width
    return tag, start, start + length


def _time(data: bytes, offset: int) -> tuple[datetime, int]:
    tag, start, end = _element(data, offset)
    text = data[start:end].decode("ascii")
    if tag == TAG_UTC_TIME:  # RFC 5280, 4.1.2.5.1: two digits, 50 to 99 are of the last century
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC), end


def validity(der: bytes) -> tuple[datetime, datetime]:
    """The dates between which a certificate is valid. Raises ValueError where this is no certificate."""
    try:
        _, offset, _ = _element(der, 0)
        _, offset, _ = _element(der, offset)
        if der[offset] == TAG_CONTEXT_0:
            offset = _element(der, offset)[2]
        for _ in ("serial number", "signature", "issuer"):
            offset = _element(der, offset)[2]
        _, offset, _ = _element(der, offset)
        begins, offset = _time(der, offset)
        return begins, _time(der, offset)[0]
    except (IndexError, UnicodeDecodeError) as cause:
        raise ValueError("not a certificate") from cause


def lifetime_problem(path: Path, now: datetime | None = None) -> str | None:
    """Why the file's first certificate is not valid now, in words; None where it is, or cannot be told."""
    text = path.read_text(encoding="ascii", errors="replace")
    begin, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if begin < 0 or end < begin:
        return None
    try:
        begins, ends = validity(ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)]))
    except ValueError:
        return None
    moment = now or datetime.now(UTC)
    if moment > ends:
        return f"expired on {ends:%Y-%m-%d %H:%M} UTC"
    if moment < begins:
        return f"is not valid before {begins:%Y-%m-%d %H:%M} UTC"
    return None
