"""`msrcache check-storage CONFIG`: the store's promises put to the proof, as a table in plain words or as JSON.

Two instances of the driver prove them, so over two connections; with `--peer URL` the other one is on the machine
where `check-storage --listen` runs (storage/peer). Nothing but keys below PROBE is written, and all of it is removed,
also when the command is interrupted.

Exit status: 0 every promise is kept; 1 the store can be used, and the table says what is missing and what follows;
2 replicas cannot share it (or nothing could be checked).
"""

import asyncio
import json
import secrets
import signal
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final, TextIO, TypeVar

from msrcache.command import opened_driver
from msrcache.config.model import Config
from msrcache.inquiry import CannotStart
from msrcache.storage.driver import Driver, Situated
from msrcache.storage.drivers import another
from msrcache.storage.errors import StorageError
from msrcache.storage.peer import Listener, Peer, PeerProblem
from msrcache.storage.probe import Permission, Report, Row, Verdict, probe
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.store import PROBE
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import SystemClock

T = TypeVar("T")

DEADLINE: Final = 10.0
"""Seconds for one call."""

VERDICTS: Final = (
    "every promise is kept",
    "it can be used; see what is missing",
    "replicas cannot share this store",
)
"""By exit status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is told of one store."""

    store: str
    between: str
    report: Report
    remarks: Sequence[str]


def check_storage(config: Config, *, peer: str = "", as_json: bool, out: TextIO) -> int:
    """Write the findings and return the exit status. Raises CannotStart; KeyboardInterrupt after cleaning up."""
    findings = asyncio.run(_until_told_to_stop(checked(config, peer)))
    out.write(_as_json(findings) if as_json else "".join(f"{line}\n" for line in table(findings)))
    return findings.report.status


def listen(config: Config, address: str, *, out: TextIO) -> int:
    """Be the other machine of a check until told to stop. Raises CannotStart."""
    with suppress(KeyboardInterrupt):
        asyncio.run(_until_told_to_stop(_listening(config, address, out)))
    return 0


async def _until_told_to_stop(work: Coroutine[object, object, T]) -> T:
    """SIGINT cancels by itself; SIGTERM would end the process with the probe's keys still there."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _listening(config: Config, address: str, out: TextIO) -> None:
    host, _, port = address.rpartition(":")
    driver, secret = opened_driver(config), _secret(config)
    try:
        async with Listener(driver, secret).listening(host.strip("[]") or "0.0.0.0", int(port)) as bound:  # noqa: S104
            out.write(
                f"doing what a check on another machine asks, on port {bound}:"
                f" msrcache check-storage CONFIG --peer http://THIS-MACHINE:{bound}\n"
            )
            out.flush()
            await asyncio.Event().wait()
    except OSError as error:
        raise CannotStart(f"{address} cannot be listened on: {error.strerror}") from error
    finally:
        await driver.close()


async def checked(config: Config, peer: str = "") -> Findings:
    """Prove everything on the configured store. Raises CannotStart."""
    if config.storage.readonly:
        raise CannotStart(
            "storage.maintenance.readonly is on: nothing may be written, so nothing can be checked"
        )
    prefix, ledger = PROBE + secrets.token_hex(8), Ledger(SystemClock(), DEADLINE)
    async with AsyncExitStack() as stack:
        here = opened_driver(config)
        stack.push_async_callback(here.close)
        near = another(here, config.storage)
        stack.push_async_callback(near.close)
        there, between = near, "two connections of this machine"
        if peer:
            there, between = await _met(peer, _secret(config), prefix, stack), f"this machine and {peer}"
        report = await probe(here, there, PROMISES, prefix=prefix, ledger=ledger, near=near)
        remarks: Sequence[str] = ()
        if isinstance(here, Situated):
            with suppress(StorageError):
                remarks = await here.situation()
        return Findings(store=here.name, between=between, report=report, remarks=remarks)


async def _met(url: str, secret: bytes, prefix: str, stack: AsyncExitStack) -> Driver:
    there = Peer(url, secret)
    stack.push_async_callback(there.close)
    try:
        await there.hello(prefix)
    except PeerProblem as error:
        raise CannotStart(str(error)) from error
    return there


def _secret(config: Config) -> bytes:
    if config.secret is None:
        raise CannotStart(
            "a check between two machines needs http.secret, equal on both: it signs what they ask"
        )
    return config.secret.get_secret_value().encode()


def table(findings: Findings) -> list[str]:
    """The findings as lines (pure)."""
    report = findings.report
    lines = [f"store: {findings.store}, between {findings.between}", ""]
    lines += [f"{'promise':<78} {'kept':<13} {'round trip':>10}"]
    for row in report.rows:
        lines += _told(row)
    lines += ["", f"{'operation':<12} {'allowed':<9} {'round trip':>10}"]
    lines += [_permitted(permission) for permission in report.permissions]
    for title, sentences in (("where it stands", findings.remarks), ("left behind", report.left)):
        if sentences:
            lines += ["", f"{title}:", *(f"  {sentence}" for sentence in sentences)]
    return [*lines, "", VERDICTS[report.status]]


def _told(row: Row) -> list[str]:
    kept = {Verdict.KEPT: "yes", Verdict.BROKEN: "NO"}.get(row.verdict, row.verdict.value)
    lines = [f"{row.promise.words:<78} {kept:<13} {_milliseconds(row.seconds):>10}".rstrip()]
    if row.said:
        lines.append(f"    {row.said}")
    if row.verdict in (Verdict.BROKEN, Verdict.DENIED) or (row.said and _concerns(row)):
        lines.append(f"    what follows: {row.promise.follows}")
    return lines


def _concerns(row: Row) -> bool:
    """Whether what is not promised changes how the cache works."""
    return row.verdict is Verdict.UNCLAIMED and row.promise.name == "exclusive-create"


def _permitted(permission: Permission) -> str:
    allowed = {True: "yes", False: "NO", None: "not tried"}[permission.allowed]
    line = f"{permission.operation:<12} {allowed:<9} {_milliseconds(permission.seconds):>10}"
    return f"{line}  {permission.said}".rstrip()


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


def _as_json(findings: Findings) -> str:
    report = findings.report
    answer = {
        "store": findings.store,
        "between": findings.between,
        "status": report.status,
        "verdict": VERDICTS[report.status],
        "promises": [
            {
                "name": row.promise.name,
                "promise": row.promise.words,
                "verdict": row.verdict.value,
                "vital": row.promise.vital,
                "roundtrip": row.seconds,
                "said": row.said,
                "follows": row.promise.follows if row.verdict is not Verdict.KEPT else "",
            }
            for row in report.rows
        ],
        "operations": [
            {"name": one.operation, "allowed": one.allowed, "roundtrip": one.seconds, "said": one.said}
            for one in report.permissions
        ],
        "remarks": list(findings.remarks),
        "left": list(report.left),
    }
    return json.dumps(answer, indent=2) + "\n"
