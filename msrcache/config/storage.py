"""The `storage:` section: exactly one driver with parameters of its own, beside what holds for every driver.

The driver's parameters are carried as they stand in the file (text, lists, maps): each driver reads its own,
so this module knows the drivers' names and nothing else of them.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Final

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, model_serializer, model_validator

from msrcache.config.fields import Flag, Section, without_effect
from msrcache.config.masking import masked

DRIVERS: Final = ("filesystem", "inmemory", "s3", "s3aws", "azure", "gcs", "swift", "oss")
DEFAULT_ROOT: Final = "/var/lib/registry"


class DeleteSection(Section):
    """Whether content may be deleted."""

    enabled: Flag = False
    """Must be true for blobttl."""


class RedirectSection(Section):
    """Whether clients are sent to the storage service for blobs."""

    disable: Flag = False
    """true: every byte flows through the cache."""


class SwitchSection(Section):
    """Something that is on or off."""

    enabled: Flag = False
    """true: nothing is written to the store; what it holds is served, the rest is passed through."""


class MaintenanceSection(Section):
    """Docker Registry's maintenance."""

    readonly: SwitchSection = SwitchSection()
    uploadpurging: Any = without_effect("uploads are not accepted, so none are left to purge")


class StorageSection(Section):
    """The store: one driver by name, its parameters, and what holds for every driver."""

    free_keys: ClassVar[frozenset[str]] = frozenset({"driver", "parameters"})

    driver: str = "filesystem"
    """The driver's name; in the file it is the key below `storage:` that holds the parameters."""
    parameters: Mapping[str, Any] = Field(default_factory=lambda: {"rootdirectory": DEFAULT_ROOT})
    """What the file says below the driver's name: scalars are text, keys are as written."""
    delete: DeleteSection = DeleteSection()
    redirect: RedirectSection = RedirectSection()
    maintenance: MaintenanceSection = MaintenanceSection()
    cache: Any = without_effect(
        "descriptors are not cached apart: the store is asked, or believed for minutes"
    )
    tag: Any = without_effect("tags are asked of the upstream, not looked up in the store")

    @property
    def delete_enabled(self) -> bool:
        return self.delete.enabled

    @property
    def redirect_disable(self) -> bool:
        return self.redirect.disable

    @property
    def readonly(self) -> bool:
        return self.maintenance.readonly.enabled

    @model_validator(mode="before")
    @classmethod
    def _name_driver(cls, value: object, info: ValidationInfo) -> object:
        """From the file's shape, {s3: {bucket: b}}, to the model's: driver and parameters."""
        if not info.context or not isinstance(value, Mapping):
            return value
        rest = {key: item for key, item in value.items() if key in PORTABLE}
        names = [key for key in value if key not in PORTABLE]
        return {**rest, "driver": names[0], "parameters": value[names[0]] or {}} if names else rest

    @model_serializer(mode="wrap", when_used="json")
    def _as_in_the_file(self, write: SerializerFunctionWrapHandler) -> Mapping[str, Any]:
        """The file's shape again, secrets masked."""
        portable = {key: item for key, item in write(self).items() if key not in ("driver", "parameters")}
        return {self.driver: masked(self.parameters), **portable}


PORTABLE: Final = frozenset({"delete", "redirect", "maintenance", "cache", "tag"})
"""The keys below `storage:` that name no driver."""


def driver_trouble(names: list[str]) -> str | None:
    """Why these keys below `storage:` do not name exactly one driver that exists; None when they do."""
    if not names:
        return f"no storage driver: exactly one of {', '.join(DRIVERS)} must stand below storage"
    if len(names) == 1 and names[0] in DRIVERS:
        return None
    strangers = [name for name in names if name not in DRIVERS]
    near = [
        match for name in strangers for match in get_close_matches(name, [*DRIVERS, *sorted(PORTABLE)], 1)
    ]
    hint = f"; did you mean {' and '.join(near)}?" if near else ""
    if len(names) == 1:
        return f"unknown storage driver; there are {', '.join(DRIVERS)}{hint}"
    return f"exactly one storage driver can be used, here are {len(names)}: {', '.join(names)}{hint}"
