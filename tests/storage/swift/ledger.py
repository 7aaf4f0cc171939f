"""What a Swift was asked about one container, and what stands in it."""

from tests.stage.swiftservices import RunningSwift

KEY = "docker/registry/v2/blobs/sha256/ab/abcd/data"
PART = 1 << 20


class Ledger:
    """The requests that the service was asked about a container since."""

    def __init__(self, service: RunningSwift, container: str) -> None:
        self._service = service
        self._container = container
        service.requests()

    def new(self) -> list[str]:
        """Those since the last look, objects by their keys, segments as such."""
        return [self._short(line) for line in self._service.requests()]

    def _short(self, line: str) -> str:
        line = line.replace(f" /{self._container}", " ").replace(" /files/", " ")
        method, _, path = line.partition(" ")
        return f"{method} segment" if path.startswith("/segments/") else line.strip()


async def segments(service: RunningSwift, container: str) -> list[str]:
    """The names of all segments."""
    return await service.names(container, "segments/")
