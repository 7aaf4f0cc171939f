"""`msrcache check-config FILE`: the verdict on a configuration, and its effective settings, secrets masked.

Exit status: 0 it can be used; 1 it can be used, but --strict was given and there are warnings or keys without
effect; 2 it cannot be used.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import yaml

from msrcache.config.load import EMBEDDED, Loaded, load
from msrcache.config.model import Config
from msrcache.config.problem import ConfigError, Kind, Problem
from msrcache.config.units import format_duration

USABLE: Final = 0
DOUBTFUL: Final = 1
UNUSABLE: Final = 2


def check(path: Path | None, environ: Mapping[str, str], *, as_json: bool, strict: bool, out: TextIO) -> int:
    """Writes verdict and settings to `out` and returns the exit status of the command."""
    try:
        loaded = load(path, environ, strict=strict)
    except ConfigError as cause:
        source = str(path) if path else EMBEDDED
        _write(out, source, cause.problems, None, as_json=as_json, status=UNUSABLE)
        return UNUSABLE
    status = DOUBTFUL if strict and loaded.problems else USABLE
    _write(out, loaded.source, loaded.problems, loaded, as_json=as_json, status=status)
    return status


def effective(config: Config) -> dict[str, Any]:
    """What follows from several keys together, in words that may be printed."""
    return {
        "upstreams": [entry.url for entry in config.upstreams],
        "store": config.storage.driver,
        "listens on": config.http.addr + (" (TLS)" if config.http.tls.enabled else ""),
        "who may read": config.access.mode,
        "spool": str(config.spool_path),
        "log level": config.log_level,
        "unused content is kept": format_duration(config.blob_ttl) if config.blob_ttl else "for ever",
    }


def verdict(problems: Sequence[Problem], status: int) -> str:
    """One line: can it be used, and how much is to be said about it."""
    count = {str(kind): sum(problem.kind is kind for problem in problems) for kind in Kind}
    usable = {USABLE: "can be used", DOUBTFUL: "can be used, with doubts", UNUSABLE: "cannot be used"}[status]
    doubts = f"warnings: {count['warning']}, keys without effect: {count['ignored']}"
    return f"{usable} (errors: {count['error']}, {doubts})"


def _write(
    out: TextIO,
    source: str,
    problems: Sequence[Problem],
    loaded: Loaded | None,
    *,
    as_json: bool,
    status: int,
) -> None:
    settings = loaded.config.masked() if loaded else None
    summary = effective(loaded.config) if loaded else None
    if as_json:
        answer = {
            "source": source,
            "status": status,
            "usable": loaded is not None,
            "verdict": verdict(problems, status),
            "problems": [problem.as_json() for problem in problems],
            "effective": summary,
            "settings": settings,
        }
        out.write(json.dumps(answer, indent=2) + "\n")
        return
    out.writelines(f"{problem}\n" for problem in problems)
    out.write(f"{source} {verdict(problems, status)}\n")
    for block in (summary, settings):
        if block is not None:
            out.write("\n" + yaml.safe_dump(block, sort_keys=False, allow_unicode=True))
