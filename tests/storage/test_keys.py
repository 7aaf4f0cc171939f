"""What is a key, and what is none."""

import pytest

from msrcache.storage.errors import KeyInvalid
from msrcache.storage.keys import LONGEST, check_key, check_prefix, is_key

LEAVING = ["", "/", "/a", "a/", "a//b", "..", "a/../b", "a/.", "./a"]
ODD = ["a b", "a\\b", "a\0b", "a\n", "\xe4", "a%2e", "a:b"]


@pytest.mark.parametrize(
    "key", ["a", "a/b", "docker/registry/v2/blobs/sha256/ab/abcd/data", ".hidden", "..a/b..", "_layers/A-1"]
)
def test_keys(key: str) -> None:
    """Segments of letters, digits, dot, underscore and dash."""
    assert is_key(key)
    check_key("driver", key)


@pytest.mark.parametrize("text", [*LEAVING, *ODD])
def test_what_is_no_key(text: str) -> None:
    """What could leave the root, or mean something else to a file system or a service, is refused by name."""
    assert not is_key(text)
    with pytest.raises(KeyInvalid) as refused:
        check_key("driver", text)
    assert refused.value.driver == "driver"


def test_keys_have_a_length() -> None:
    """Segments are as long as file systems allow, keys as services do."""
    assert is_key("s" * 255)
    assert is_key("/".join(["s"] * (LONGEST // 2)))
    for text in ("s" * 256, "/".join(["s"] * LONGEST)):
        with pytest.raises(KeyInvalid):
            check_key("driver", text)


def test_prefixes() -> None:
    """A prefix is a key, may end in one slash, or is empty."""
    assert [check_prefix("d", text) for text in ("", "a", "a/", "a/b/")] == ["", "a", "a", "a/b"]
    for wrong in ("/", "a//", "../", "/a", "a/../"):
        with pytest.raises(KeyInvalid):
            check_prefix("d", wrong)
