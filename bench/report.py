"""Writes docs/performance.md between its markers, and docs/performance.svg."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Row

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- measured: begin (written by make bench) -->", "<!-- measured: end -->"


def machine() -> str:
    """The machine in general words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, Linux {kernel.split('-')[0]}, ext4, loopback"


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| figure | target | measured (medians) | value | |", "|---|---|---|---|---|"]
    for row in rows:
        met = "beside" if row.aside else "met" if row.met else "**missed**"
        lines.append(f"| {row.figure} | {row.target} | {row.measured} | {row.value:.3g} | {met} |")
    return "\n".join(lines)


def write(rows: Sequence[Row], *, kind: str) -> None:
    """Replace what was measured before; the rest of the page is written by hand."""
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    picture = "![how near to the targets](performance.svg)"
    text = f"{BEGIN}\n\n{kind} run on {machine()}.\n\n{table(rows)}\n\n{picture}\n\n{END}"
    page.write_text(before + text + after)
    plot(rows)


def plot(rows: Sequence[Row]) -> None:
    """Each figure as a part of what its target allows: 1 is the target, less is better."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "msrcache"
    from matplotlib import pyplot  # noqa: PLC0415

    rows = [row for row in rows if not row.aside]
    parts = [row.limit / row.value if row.least else row.value / row.limit for row in rows]
    figure, axes = pyplot.subplots(figsize=(9, 0.38 * len(rows) + 1))
    axes.barh(
        [row.figure for row in rows], parts, color=["#3a7d44" if row.met else "#b3392f" for row in rows]
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("part of what the target allows (1 = the target; less is better)")
    axes.invert_yaxis()
    figure.tight_layout()
    figure.savefig(DOCS / "performance.svg", metadata={"Date": None})
