"""python -m bench [--quick] [--only NAME,…]: measures the cache beside nginx and Docker Registry.

Without --only, docs/performance.md is written; with it, the table is only printed.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

from bench.content import Shelf
from bench.figures import FULL, ONE_STORE, QUICK, Bench, Row, Size
from bench.fleets import FLEETS
from bench.report import table, write
from bench.servers import Yard
from bench.stores import STORES
from bench.workers import WORKERS
from tests.stage.tools import PROJECT, find

FIGURES = {**ONE_STORE, **STORES, **FLEETS, **WORKERS}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few pairs, small sizes: about three minutes")
    parser.add_argument("--only", help=f"some figures: {', '.join(FIGURES)}")
    given = parser.parse_args()
    absent = [name for name in ("nginx", "docker-registry", "registry", "wrk") if find(name) is None]
    if absent:
        raise SystemExit(
            f"not installed: {', '.join(absent)}. scripts/test-deps and apt-get install wrk bring them"
        )
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    size = QUICK if given.quick else FULL
    chosen = given.only.split(",") if given.only else list(FIGURES)
    # Beside the project, not in /tmp, which may be memory: the figures are of a real file system.
    place = PROJECT / "var"
    place.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=place))
    try:
        rows = measured(folder, chosen, Shelf(folder / "shelf"), size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(rows))
    if not given.only:
        write(rows, kind="Quick" if given.quick else "Full")


def measured(folder: Path, chosen: list[str], shelf: Shelf, size: Size) -> list[Row]:
    """The rows of the chosen figures."""
    rows: list[Row] = []
    shelf.blob(1000)
    yard = Yard(folder)
    try:
        bench = Bench(yard, shelf, size, yard.upstream(shelf.folder), yard.origin(shelf.folder))
        for name in chosen:
            begun = time.monotonic()
            for row in FIGURES[name](bench):
                rows.append(row)
                print(f"{row.figure}: {row.value:.3g} ({row.target}); {row.measured}", flush=True)
            print(f"  [{name}: {time.monotonic() - begun:.0f} s]", flush=True)
    finally:
        yard.close()
    return rows


if __name__ == "__main__":
    main()
