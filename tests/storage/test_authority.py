"""An authority that cannot be trusted is told at the start, and none is warned of."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from msrcache.storage.authority import check_authority, warn_unverified
from msrcache.storage.parameters import ParameterError
from tests.stage.certificates import authority


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    """With the parameter and the path; a real one is taken."""
    check_authority("s3", str(authority(tmp_path / "ca").bundle))
    (tmp_path / "text").write_text("hello")
    for name, words in (("text", "holds no PEM certificate"), ("missing", "cannot be read: No such file")):
        with pytest.raises(ParameterError, match=rf"storage\.s3\.ca: .*{name} {words}"):
            check_authority("s3", str(tmp_path / name))


def test_no_verification_is_warned_of() -> None:
    """By the parameter's own name, with what to do instead."""
    with capture_logs() as told:
        warn_unverified("swift", "insecureskipverify")
    assert told[0]["event"].startswith("storage.swift.insecureskipverify is on")
    assert "storage.swift.ca" in told[0]["event"]
