"""No secret stands in a message or in the printed settings."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from msrcache.config.fields import Section
from msrcache.config.masking import MASK, is_secret, masked, shown
from msrcache.config.model import Config
from msrcache.config.schema import keys_of


def secret_keys(section: type[Section]) -> Iterator[str]:
    """The keys that the model holds as secrets, of this section and those below it."""
    for name, field in section.model_fields.items():
        if SecretStr in (field.annotation, *getattr(field.annotation, "__args__", ())):
            yield field.alias or name
    for shape in keys_of(section).values():
        below = shape.section or (shape.item.section if shape.item else None)
        if below is not None:
            yield from secret_keys(below)


def test_every_secret_of_the_model_is_masked_in_messages() -> None:
    """What the model keeps as a secret is one by its key too, before it has been understood."""
    keys = set(secret_keys(Config))
    assert {"secret", "password"} <= keys
    assert all(is_secret((key,)) for key in keys)


@pytest.mark.parametrize(
    "path",
    [
        ("storage", "s3", "secretkey"),
        ("storage", "s3", "accesskey"),
        ("storage", "azure", "accountkey"),
        ("storage", "azure", "sastoken"),
        ("storage", "gcs", "credentials", "private_key"),
        ("storage", "swift", "password"),
        ("storage", "oss", "accesskeysecret"),
        ("storage", "azure", "connectionstring"),
        ("health", "http", 0, "headers", "Authorization"),
        ("redis", "sentinelpassword"),
    ],
)
def test_what_drivers_call_their_secrets_is_masked(path: tuple[str | int, ...]) -> None:
    """By the last key, or by the block around it."""
    assert is_secret(path)
    assert shown("hunter2", path) == MASK


@pytest.mark.parametrize(
    "path",
    [("proxy", "username"), ("storage", "s3", "bucket"), ("http", "tls", "key"), ("x", "passwordfile")],
)
def test_what_is_no_secret_is_shown(path: tuple[str, ...]) -> None:
    """A message that hides too much helps nobody."""
    assert shown("plain", path) == "plain"


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2@msr",
        "https://user:hunt/hunter2@msr",
        "https://x?sig=hunter2&y=1",
        "-----BEGIN PRIVATE KEY-----hunter2",
    ],
)
def test_secrets_inside_of_values_are_masked(text: str) -> None:
    """User information of URLs, signatures, key material."""
    assert "hunter2" not in shown(text, ("url",))
    assert "hunter2" not in str(masked({"url": [text]}))


def test_a_tree_is_masked_to_its_leaves() -> None:
    """Lists and maps below a secret key are secret as a whole; everything else stays."""
    tree: Any = {
        "bucket": "b",
        "secretkey": "s",
        "credentials": {"type": "t", "ids": ["x"]},
        "empty": None,
        "list": ["y"],
    }
    want = {**tree, "secretkey": MASK, "credentials": {"type": MASK, "ids": [MASK]}}
    assert masked(tree) == want


@given(st.text())
def test_a_shown_value_is_one_short_printable_line(text: str) -> None:
    """Whatever stands in the file cannot break or flood the terminal."""
    line = shown(text, ("key",))
    assert line.isprintable()
    assert len(line) <= 80
