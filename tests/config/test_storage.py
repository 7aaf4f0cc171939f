"""The storage section names one driver and carries its parameters untouched."""

import pytest

from msrcache.config.masking import MASK
from msrcache.config.storage import DRIVERS, PORTABLE, StorageSection, driver_trouble
from tests.config.files import bare


def section(text: str) -> StorageSection:
    """The storage section of a file."""
    return bare(f"version: 0.1\nstorage: {text}\n").config.storage


def test_parameters_are_text_lists_and_maps_as_written() -> None:
    """Drivers read their own numbers and booleans; an octal look is left alone."""
    found = section("{s3: {bucket: 010, secure: on, chunksize: 1e7, tags: [a, {b: c}], encrypt: }}")
    assert found.driver == "s3"
    assert found.parameters == {
        "bucket": "010",
        "secure": "on",
        "chunksize": "1e7",
        "tags": ["a", {"b": "c"}],
        "encrypt": None,
    }


def test_what_holds_for_every_driver_stands_beside_it() -> None:
    """delete, redirect, maintenance."""
    shared = "delete: {enabled: yes}, redirect: {disable: true}, maintenance: {readonly: {enabled: on}}"
    found = section(f"{{inmemory: , {shared}}}")
    assert (found.delete_enabled, found.redirect_disable, found.readonly) == (True, True, True)
    found = section("inmemory")
    assert (found.delete_enabled, found.redirect_disable, found.readonly) == (False, False, False)


@pytest.mark.parametrize("text", ["filesystem", "{filesystem: }", "{filesystem: {}}"])
def test_a_driver_may_have_no_parameters(text: str) -> None:
    """A bare word, an empty key, an empty map."""
    found = section(text)
    assert (found.driver, found.parameters) == ("filesystem", {})


@pytest.mark.parametrize("name", DRIVERS)
def test_every_driver_of_docker_registry_is_known(name: str) -> None:
    """Also those that version 3 removed."""
    assert driver_trouble([name]) is None
    assert section(name).driver == name


def test_keys_for_every_driver_are_no_drivers() -> None:
    """And no driver has such a name."""
    assert not PORTABLE & set(DRIVERS)


def test_it_can_be_built_in_python() -> None:
    """As tests and the storage part do it."""
    found = StorageSection(driver="filesystem", parameters={"rootdirectory": "/x"})
    assert found.parameters["rootdirectory"] == "/x"


def test_it_is_shown_in_the_shape_of_the_file() -> None:
    """The driver's name as key, its secrets masked."""
    shown = section("{azure: {accountname: a, accountkey: k}, delete: {enabled: true}}").model_dump(
        mode="json"
    )
    assert shown["azure"] == {"accountname": "a", "accountkey": MASK}
    assert shown["delete"] == {"enabled": True}
    assert "parameters" not in shown
