"""server.checks: the operator's own checks."""

import socket
from pathlib import Path

import pytest

from msrcache.config.registry import FileCheckSection, HealthSection, HttpCheckSection, TcpCheckSection
from msrcache.server.checks import Checks, FileCheck, HttpCheck, TcpCheck, Watch
from tests.stage.serving import Served, until


async def test_a_file(tmp_path: Path) -> None:
    """Fails while the file is there."""
    check = FileCheck(FileCheckSection(file=str(tmp_path / "stop")))
    assert await check.look() is None
    (tmp_path / "stop").touch()
    assert await check.look() == "file exists"


async def test_a_url(served: Served) -> None:
    """HEAD must give the expected status; anything else is told in words."""
    base = f"http://127.0.0.1:{served.port}"
    assert await HttpCheck(HttpCheckSection(uri=f"{base}/v2/")).look() is None
    absent = HttpCheckSection(uri=f"{base}/absent", status_code=404, headers={"X-A": ("b",)})
    assert await HttpCheck(absent).look() is None
    assert await HttpCheck(HttpCheckSection(uri=f"{base}/absent")).look() == "status 404 instead of 200"
    nobody = await HttpCheck(HttpCheckSection(uri="http://127.0.0.1:9/")).look()
    assert nobody is not None
    assert nobody.startswith("no answer")


async def test_an_address(served: Served) -> None:
    """Something must accept."""
    assert await TcpCheck(TcpCheckSection(addr=f"127.0.0.1:{served.port}")).look() is None
    problem = await TcpCheck(TcpCheckSection(addr="127.0.0.1:9")).look()
    assert problem is not None
    assert problem.startswith("no connection")


async def test_silence_is_a_problem() -> None:
    """Who accepts and never answers fails in the check's own time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        section = HttpCheckSection(uri=f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.05)
        assert await HttpCheck(section).look() == "no answer within 0.05 s"


@pytest.mark.parametrize(("threshold", "needed"), [(0, 1), (1, 1), (3, 3)])
def test_the_threshold(threshold: int, needed: int) -> None:
    """So many bad looks in a row are needed; one good one heals."""
    watch = Watch(FileCheck(FileCheckSection(file="/x")), threshold=threshold)
    seen = []
    for problem in ["bad"] * needed + [None]:
        watch.note(problem)
        seen.append(watch.problem)
    assert seen == [None] * (needed - 1) + ["bad", None]


async def test_all_are_looked_at(tmp_path: Path) -> None:
    """From start to close, each by its name."""
    (tmp_path / "stop").touch()
    section = HealthSection(
        file=(FileCheckSection(file=str(tmp_path / "stop")),),
        tcp=(TcpCheckSection(addr="127.0.0.1:9", interval=0.1, threshold=2),),
    )
    checks = Checks(section)
    assert len(checks.watches) == 2
    assert checks.failing() == {}
    checks.start()
    await until(lambda: len(checks.failing()) == 2)
    assert set(checks.failing()) == {str(tmp_path / "stop"), "127.0.0.1:9"}
    await checks.close()
