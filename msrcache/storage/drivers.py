"""The drivers by name, each in a module of its own that is imported only when it is configured.

A module has `make(parameters) -> Driver`: it reads its parameters, refuses unknown ones, and asks nobody.
"""

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Final, Protocol

from msrcache.storage.driver import Driver, Twin
from msrcache.storage.parameters import ParameterError

DRIVERS: Final[Mapping[str, str]] = {
    "filesystem": "msrcache.storage.filesystem",
    "inmemory": "msrcache.storage.memory",
    "s3": "msrcache.storage.s3",
    "s3aws": "msrcache.storage.s3",
    "azure": "msrcache.storage.azure",
    "gcs": "msrcache.storage.gcs",
    "swift": "msrcache.storage.swift",
    "oss": "msrcache.storage.oss",
}


class Section(Protocol):
    """What is needed of config.yml's `storage:`."""

    @property
    def driver(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, object]: ...


def open_driver(section: Section) -> Driver:
    """The configured driver; it has not asked its service anything yet.

    Raises ParameterError with a sentence that says what to do: unknown driver or parameter, missing package.
    """
    module = DRIVERS.get(section.driver)
    if module is None:
        raise ParameterError(
            f"storage.{section.driver}: no such driver; there are {', '.join(sorted(DRIVERS))}"
        )
    try:
        driver: Driver = import_module(module).make(section.parameters)
    except ModuleNotFoundError as error:
        raise ParameterError(_missing(section.driver, module, error)) from error
    return driver


def preload(section: Section) -> None:
    """Bring the driver's code in, for processes that are forked later: they share its memory, and one that is forked
    after the package was replaced does not mix two versions. What is wrong with it is found by whoever opens it.
    """
    with suppress(ImportError):
        import_module(DRIVERS[section.driver])


def another(driver: Driver, section: Section) -> Driver:
    """A second instance on the same store, with connections of its own: what is written by one is seen by the other
    only if the store shows it. Raises ParameterError as open_driver does.
    """
    return driver.twin() if isinstance(driver, Twin) else open_driver(section)


def _missing(driver: str, module: str, error: ModuleNotFoundError) -> str:
    if error.name == module:
        return f"storage.{driver}: this version has no such driver yet"
    extra = module.rpartition(".")[2]
    return f"storage.{driver} needs the package {error.name}: pip install 'msrcache[{extra}]'"
