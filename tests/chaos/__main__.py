"""make chaos: three replicas behind HAProxy on a real object store, forty clients, and one fault after the other.

    python -m tests.chaos --seconds 600 --rounds 5 --pulls 2000 [--seed N] [--write docs/reliability.md]

Ends with a table, and with 1 where a pull failed that nothing excuses, a byte was wrong, the upstream sent too much, or
too little happened for the run to prove anything. The seed, printed first, plays the same faults again.
"""

import argparse
import asyncio
import hashlib
import random
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.chaos.crowd import Crowd, Wanted
from tests.chaos.faults import Hand
from tests.chaos.fleet import BUCKET, THRESHOLD, Fleet, fleet
from tests.chaos.plan import plan
from tests.chaos.verdict import MOST, UNEXCUSED, Pulled, Sent, Verdict, Window, cause, judge
from tests.stage.images import Content
from tests.stage.push import Pusher, pusher

REPOSITORY: Final = "chaos/app"
SIZES: Final = (60_000, 400_000, 1_500_000, 3_000_000, 6_000_000, 12_000_000)
FIRST: Final = 18
NEW_EVERY: Final = 4.0
"""Seconds after which there is something new to pull, cold."""
BEGIN, MARK = "<!-- chaos: begin -->", "<!-- chaos: end -->"

BLOB = re.compile(r"(?<=/blobs/)sha256:[0-9a-f]{64}$")


async def new_blob(push: Pusher, number: int, seed: int) -> Wanted:
    """One more blob in the registry."""
    size = SIZES[number % len(SIZES)] + number
    data = random.Random(seed * 10_000 + number).randbytes(size)
    digest = f"sha256:{await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())}"
    await push.blob(REPOSITORY, Content("application/octet-stream", data, digest, size))
    return Wanted(f"/v2/{REPOSITORY}/blobs/{digest}", digest, size)


async def stock(push: Pusher, shelf: list[Wanted], until: asyncio.Event, seed: int) -> None:
    """Something new now and then."""
    while not until.is_set():
        shelf.append(await new_blob(push, len(shelf), seed))
        await asyncio.sleep(NEW_EVERY)


def sent(stage: Fleet, began: float) -> list[Sent]:
    """What of blobs was handed to the replicas: a registry itself counts what it wrote into a wire that broke."""
    return [
        Sent(found[0], body.count, body.asked - began)
        for body in stage.network.bodies()
        if body.status in (200, 206) and (found := BLOB.search(body.path)) is not None
    ]


def wrong_in(stage: Fleet, shelf: list[Wanted]) -> int:
    """How many of the stored blobs are not what they are called."""
    known = {wanted.digest for wanted in shelf}
    return sum(
        f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" != digest
        for digest, path in stage.stored().items()
        if digest in known
    )


async def ended(stage: Fleet) -> dict[str, int]:
    """All replicas drained; what is left behind of what no longer has a use."""
    for one in stage.replicas:
        one.leave()
    await asyncio.gather(*(one.ended() for one in stage.replicas))
    uploads = len(stage.store.uploads(BUCKET))
    return {"leases": len(stage.leases()), "spool files": stage.spooled(), "uploads": uploads}


def tell_failures(pulled: list[Pulled], windows: list[Window]) -> None:
    """Every attempt that failed without an excuse, for whoever looks for the reason."""
    for one in pulled:
        for attempt in (attempt for attempt in one.attempts if attempt.error):
            if cause(attempt, windows) == UNEXCUSED:
                where = "?" if attempt.replica is None else attempt.replica + 1
                when = f"{attempt.start:6.1f}-{attempt.stop:.1f} s"
                print(f"{when}  replica {where}  {one.digest[7:19]}  {attempt.error}")


async def run(folder: Path, arguments: argparse.Namespace) -> Verdict:
    """One run, to its verdict."""
    async with fleet(folder) as stage, pusher(stage.registry.url) as push:
        shelf = [await new_blob(push, number, arguments.seed) for number in range(FIRST)]
        began, over = time.monotonic(), asyncio.Event()
        crowd = Crowd(stage.url, shelf, began, arguments.seed)
        hand = Hand(stage, began, tell=lambda text: print(text, flush=True))
        pulling = asyncio.create_task(crowd.pull(over))
        stocking = asyncio.create_task(stock(push, shelf, over, arguments.seed))
        await hand.play(plan(arguments.seed, seconds=arguments.seconds, rounds=arguments.rounds))
        await asyncio.sleep(max(0.0, began + arguments.seconds - time.monotonic()))
        over.set()
        await pulling
        await stocking
        left = await ended(stage)
        tell_failures(crowd.pulled, hand.windows)
        return judge(
            crowd.pulled,
            hand.windows,
            sent(stage, began),
            deleted=stage.deleted(began),
            threshold=THRESHOLD,
            wrong_stored=await asyncio.to_thread(wrong_in, stage, shelf),
            leftovers=left,
        )


def main() -> int:
    """Run it; 0 where it was green."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind of fault")
    parser.add_argument("--pulls", type=int, default=2000, help="fewer make it red")
    parser.add_argument(
        "--most", type=float, default=MOST, help="more upstream bytes over unique ones make it red"
    )
    parser.add_argument("--deleted", type=int, default=20, help="fewer blobs that expired make it red")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--write", type=Path, help="a page with the marks of a chaos table")
    parser.add_argument("--folder", type=Path, help="keeps configurations and logs there")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        verdict = asyncio.run(run(arguments.folder or Path(temporary), arguments))
    reasons = verdict.red(
        pulls=arguments.pulls, rounds=arguments.rounds, most=arguments.most, deleted=arguments.deleted
    )
    print(f"\n{verdict.table()}\n")
    for reason in reasons:
        print(f"RED: {reason}")
    if arguments.write is not None:
        before, _, rest = arguments.write.read_text().partition(BEGIN)
        said = f"{arguments.seconds:.0f} s, seed {arguments.seed}, {'red' if reasons else 'green'}"
        arguments.write.write_text(
            f"{before}{BEGIN}\n{said}\n\n{verdict.table()}\n{MARK}{rest.partition(MARK)[2]}"
        )
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
