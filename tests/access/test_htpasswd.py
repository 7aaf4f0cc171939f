"""Promises of access.htpasswd: bcrypt alone, warnings in words, read again when changed, never made up."""

import os
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from msrcache.access.htpasswd import AccountsError, Htpasswd, parse_htpasswd
from msrcache.oci.errors import Unavailable
from tests.stage.clock import FakeClock

HASH = bcrypt.hashpw(b"sesame", bcrypt.gensalt(4)).decode()


def test_bcrypt_entries_in_all_their_spellings_are_read() -> None:
    """$2a, $2b and htpasswd's $2y; comments and empty lines are none; the last entry of a name counts."""
    lines = ["# people", "", f"jane:{HASH}", f" ann:{HASH.replace('$2b', '$2y')}\r"]
    text = "\n".join([*lines, f"bob:{HASH.replace('$2b', '$2a')}", f"jane:{HASH[:-1]}."])
    accounts, warnings = parse_htpasswd(text)
    assert warnings == []
    assert set(accounts.hashes) == {"jane", "ann", "bob"}
    assert accounts.hashes["jane"].endswith(b".")


@pytest.mark.parametrize(
    "entry",
    ["jane:sesame", "jane:$apr1$x$y", "jane:{SHA}abc", "jane:", f"jane:{HASH.replace('$04', '$31')}",
     f"jane:{HASH.replace('$04', '$03')}", f"jane:{HASH}x", f"jane:{HASH.replace('$2b', '$2x')}"],
)  # fmt: skip
def test_other_entries_cannot_log_in_and_are_told(entry: str) -> None:
    """With line and account, and never with the hash; a hash that costs minutes is refused too."""
    accounts, (warning,) = parse_htpasswd(f"\n{entry}\nann:{HASH}\n")
    assert set(accounts.hashes) == {"ann"}
    assert "line 2, account 'jane'" in warning
    assert "sesame" not in warning


def test_a_line_that_is_no_entry_is_told() -> None:
    """Without its text, which may be a password."""
    accounts, warnings = parse_htpasswd(f"sesame\n:{HASH}")
    assert not accounts.hashes
    assert [warning[:6] for warning in warnings] == ["line 1", "line 2"]
    assert "sesame" not in "".join(warnings)


def test_nobodys_hash_costs_what_the_others_do() -> None:
    """So that an unknown account takes as long; no password is right."""
    accounts, _ = parse_htpasswd(f"jane:{HASH}")
    assert accounts.nobody.startswith(b"$2b$04$")
    assert not bcrypt.checkpw(b"sesame", accounts.nobody)
    empty, _ = parse_htpasswd("")
    assert empty.nobody.startswith(b"$2b$10$")


@given(st.text())
def test_any_file_is_read(text: str) -> None:
    """Whatever stands in it."""
    parse_htpasswd(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one account."""
    path = tmp_path / "htpasswd"
    path.write_text(f"jane:{HASH}\n")
    return path


async def test_a_change_is_seen_within_a_second(file: Path) -> None:
    """By time, size or inode; one look a second is enough."""
    clock = FakeClock()
    htpasswd = Htpasswd(file, clock=clock)
    assert set((await htpasswd.accounts()).hashes) == {"jane"}
    file.write_text(f"jane:{HASH}\nann:{HASH}\n")
    assert set((await htpasswd.accounts()).hashes) == {"jane"}
    clock.advance(1)
    assert set((await htpasswd.accounts()).hashes) == {"jane", "ann"}
    other = file.with_name("new")
    other.write_text(f"jane:{HASH}\nbob:{HASH}\n")
    times = file.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)
    clock.advance(1)
    assert set((await htpasswd.accounts()).hashes) == {"jane", "bob"}


async def test_an_unchanged_file_is_not_parsed_again(file: Path) -> None:
    """The same object comes back."""
    clock = FakeClock()
    htpasswd = Htpasswd(file, clock=clock)
    first = await htpasswd.accounts()
    clock.advance(5)
    assert await htpasswd.accounts() is first


async def test_a_file_that_goes_away_leaves_the_accounts(file: Path) -> None:
    """Told once, loudly; when it comes back it is read."""
    clock = FakeClock()
    htpasswd = Htpasswd(file, clock=clock)
    await htpasswd.load()
    file.unlink()
    with capture_logs() as logs:
        for _ in range(3):
            clock.advance(1)
            assert set((await htpasswd.accounts()).hashes) == {"jane"}
    assert [line["log_level"] for line in logs] == ["error"]
    assert str(file) in logs[0]["event"]
    file.write_text(f"ann:{HASH}\n")
    clock.advance(1)
    assert set((await htpasswd.accounts()).hashes) == {"ann"}


async def test_a_missing_file_is_not_made_up(tmp_path: Path) -> None:
    """At the start it is an error that says what to do; later nobody can log in until it is there."""
    clock = FakeClock()
    path = tmp_path / "none"
    htpasswd = Htpasswd(path, clock=clock)
    with pytest.raises(AccountsError, match=r"none cannot be read \(No such file.*htpasswd -B -c"):
        await htpasswd.load()
    with capture_logs(), pytest.raises(Unavailable):
        await htpasswd.accounts()
    assert not path.exists()
    path.write_text(f"jane:{HASH}\n")
    clock.advance(1)
    assert set((await htpasswd.accounts()).hashes) == {"jane"}
    await htpasswd.close()


async def test_refused_entries_are_logged(file: Path) -> None:
    """One warning each."""
    file.write_text("jane:sesame\n")
    with capture_logs() as logs:
        await Htpasswd(file, clock=FakeClock()).load()
    assert [line["log_level"] for line in logs] == ["warning", "info"]


async def test_a_file_that_is_too_large_is_refused(file: Path) -> None:
    """It would be held in memory."""
    with file.open("r+b") as opened:
        opened.truncate((16 << 20) + 1)
    with pytest.raises(AccountsError, match="larger than"):
        await Htpasswd(file, clock=FakeClock()).load()
