"""Commands.

``msrcache serve [CONFIG]`` is what runs; ``msrcache CONFIG`` is the same, because the image that this one replaces is
started with its configuration's path alone. Exit codes: 0 done, 1 a lesser trouble, 2 nothing was started.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

from msrcache import __version__
from msrcache.adopt import adopt
from msrcache.assembly import inspected
from msrcache.cache.inspect import Part
from msrcache.checkstorage import check_storage, listen
from msrcache.config.check import check
from msrcache.config.fields import check_address
from msrcache.config.load import load
from msrcache.config.model import Config
from msrcache.config.problem import ConfigError
from msrcache.config.units import parse_size
from msrcache.evict import evict
from msrcache.gc import gc
from msrcache.inquiry import CannotStart
from msrcache.oci.digest import ALGORITHMS, Digest
from msrcache.oci.errors import RegistryError
from msrcache.oci.names import ImageReference
from msrcache.serve import run
from msrcache.status import Showing, status
from msrcache.storage.errors import StorageError
from msrcache.verify import RATE, verify

COMMANDS = (
    *("serve", "check-config", "check-storage", "inspect", "status"),
    *("gc", "evict", "verify", "adopt"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(_normalized(given))
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130


def _normalized(given: list[str]) -> list[str]:
    """``/config.yml`` alone means ``serve /config.yml``; nothing at all means ``serve``."""
    if not given:
        return ["serve"]
    if given[0] in COMMANDS or given[0].startswith("-"):
        return given
    return ["serve", *given]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="msrcache", description="A pull-through cache for MSR and OCI registries."
    )
    parser.add_argument("--version", action="version", version=f"msrcache {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the cache (also: msrcache CONFIG)")
    _configured(serve)
    serve.set_defaults(run=_serve)
    checked = commands.add_parser(
        "check-config", help="say what is wrong with a configuration, and what it means"
    )
    _configured(checked)
    checked.add_argument(
        "--json", action="store_true", help="print the verdict and the effective settings as JSON"
    )
    checked.set_defaults(run=_check_config)
    storage = commands.add_parser(
        "check-storage", help="put the store's promises to the proof: may replicas share it?"
    )
    _configured(storage)
    storage.add_argument("--json", action="store_true", help="print JSON")
    other = storage.add_mutually_exclusive_group()
    other.add_argument("--peer", metavar="URL", default="", help="check between here and where --listen runs")
    other.add_argument("--listen", metavar="HOST:PORT", type=_address, help="be the other machine of a check")
    storage.set_defaults(run=_check_storage)
    _looking(commands)
    return parser


def _looking(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands that look at what is there."""
    inspecting = commands.add_parser("inspect", help="what the cache holds of an image")
    inspecting.add_argument("reference", help="repository:tag or repository@digest, with or without a host")
    inspecting.add_argument("--config", type=Path, help="the configuration that names the store")
    inspecting.add_argument("--json", action="store_true", help="print JSON")
    inspecting.set_defaults(run=_inspect)
    expiring = commands.add_parser("gc", help="delete what has expired")
    _configured(expiring)
    expiring.add_argument("--dry-run", action="store_true", help="delete nothing, tell what is due")
    expiring.add_argument("--json", action="store_true", help="print JSON")
    expiring.set_defaults(run=_gc)
    _store_commands(commands)
    seeing = commands.add_parser(
        "status", help="the replicas on the store: who lives, what they do, what is wrong"
    )
    _configured(seeing)
    seeing.add_argument(
        "--url", default="", help="ask the replica with this http.debug.addr; no configuration is needed"
    )
    seeing.add_argument("--watch", action="store_true", help="again and again, until interrupted")
    seeing.add_argument("--json", action="store_true", help="print JSON; with --watch a line each time")
    seeing.set_defaults(run=_status)


def _store_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evicting = commands.add_parser("evict", help="delete an image, or one blob, out of the store at once")
    evicting.add_argument("wanted", metavar="REFERENCE|DIGEST", type=_wanted)
    evicting.add_argument("--config", type=Path, help="the configuration that names the store")
    evicting.add_argument("--json", action="store_true", help="print JSON")
    evicting.set_defaults(run=_evict)
    verifying = commands.add_parser("verify", help="hash everything that is stored once more")
    _configured(verifying)
    verifying.add_argument(
        "--repair", action="store_true", help="remove what is wrong: its next use fetches it"
    )
    verifying.add_argument(
        "--rate", metavar="SIZE", type=_size, default=RATE, help="bytes a second, such as 100MB; 0: no limit"
    )
    verifying.add_argument("--after", metavar="DIGEST", type=_digest, help="go on behind this one")
    verifying.add_argument("--json", action="store_true", help="print JSON")
    verifying.set_defaults(run=_verify)
    adopting = commands.add_parser("adopt", help="what a store holds that another program filled")
    _configured(adopting)
    adopting.add_argument(
        "--dry-run", action="store_true", required=True, help="the only way: it is served in place"
    )
    adopting.add_argument("--json", action="store_true", help="print JSON")
    adopting.set_defaults(run=_adopt)


def _configured(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", type=Path, help="config.yml; default: $REGISTRY_CONFIGURATION_PATH"
    )
    parser.add_argument("--strict", action="store_true", help="unknown keys are errors")


def _address(text: str) -> str:
    try:
        return check_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _wanted(text: str) -> ImageReference | Digest:
    try:
        algorithm, _, digits = text.partition(":")
        return Digest(algorithm, digits) if algorithm in ALGORITHMS else ImageReference.parse(text)
    except RegistryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except RegistryError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _path(given: Path | None) -> Path | None:
    named = os.environ.get("REGISTRY_CONFIGURATION_PATH")
    return given or (Path(named) if named else None)


def _serve(options: argparse.Namespace) -> int:
    path = _path(options.config)
    try:
        loaded = load(path, os.environ, strict=options.strict)
    except ConfigError as error:
        _say(str(error))
        return 2
    try:
        return run(loaded, lambda: load(path, os.environ, strict=options.strict))
    except CannotStart as error:
        _say(f"msrcache cannot start: {error}")
        return 2


def _check_config(options: argparse.Namespace) -> int:
    return check(
        _path(options.config), os.environ, as_json=options.json, strict=options.strict, out=sys.stdout
    )


def _check_storage(options: argparse.Namespace) -> int:
    out = sys.stdout
    try:
        config = load(_path(options.config), os.environ, strict=options.strict).config
        with redirect_stdout(sys.stderr):  # what a driver warns of is no part of the answer
            if options.listen:
                return listen(config, options.listen, out=out)
            return check_storage(config, peer=options.peer, as_json=options.json, out=out)
    except (ConfigError, CannotStart) as error:
        _say(str(error))
        return 2


def _status(options: argparse.Namespace) -> int:
    showing = Showing(out=sys.stdout, as_json=options.json, watch=options.watch)
    try:
        config = None
        if not options.url:
            config = load(_path(options.config), os.environ, strict=options.strict).config
        with redirect_stdout(sys.stderr):  # as above
            return status(config, url=options.url, showing=showing)
    except (ConfigError, CannotStart) as error:
        _say(str(error))
        return 2


def _inspect(options: argparse.Namespace) -> int:
    try:
        reference = ImageReference.parse(options.reference)
        config = load(_path(options.config), os.environ).config
        with redirect_stdout(sys.stderr):  # as above
            parts = asyncio.run(inspected(config, reference))
    except (ConfigError, CannotStart, RegistryError, StorageError) as error:
        _say(str(error))
        return 2
    if not parts:
        _say(f"{options.reference}: nothing of it was pulled through this cache")
        return 1
    if options.json:
        print(json.dumps([_row(part) for part in parts], indent=2))
    else:
        _table(parts)
    return 1 if any(part.missing for part in parts) else 0


def _gc(options: argparse.Namespace) -> int:
    return _on_store(
        options, lambda config, out: gc(config, dry_run=options.dry_run, as_json=options.json, out=out)
    )


def _evict(options: argparse.Namespace) -> int:
    return _on_store(
        options, lambda config, out: evict(config, options.wanted, as_json=options.json, out=out)
    )


def _verify(options: argparse.Namespace) -> int:
    asked = {"repair": options.repair, "rate": options.rate, "after": options.after, "as_json": options.json}
    return _on_store(options, lambda config, out: verify(config, out=out, **asked))


def _adopt(options: argparse.Namespace) -> int:
    return _on_store(options, lambda config, out: adopt(config, as_json=options.json, out=out))


def _on_store(options: argparse.Namespace, work: Callable[[Config, TextIO], int]) -> int:
    """Do it with the configuration; what stands in the way is one sentence and 2."""
    out = sys.stdout
    try:
        config = load(_path(options.config), os.environ, strict=getattr(options, "strict", False)).config
        with redirect_stdout(sys.stderr):  # as above
            return work(config, out)
    except (ConfigError, CannotStart) as error:
        _say(str(error))
        return 2


def _row(part: Part) -> dict[str, object]:
    return {
        "digest": str(part.digest),
        "kind": part.kind,
        "mediaType": part.media_type,
        "size": part.size,
        "stored": None if part.stored is None else _when(part.stored),
        "missing": part.missing,
    }


def _table(parts: Sequence[Part]) -> None:
    print(f"{'kind':<10} {'size':>14}  {'stored':<20} digest")
    for part in parts:
        stored = "missing" if part.stored is None else _when(part.stored)
        print(f"{'  ' * part.depth + part.kind:<10} {part.size:>14,}  {stored:<20} {part.digest}")
    held = sum(part.size for part in parts if not part.missing)
    missing = [part for part in parts if part.missing]
    print(f"{len(parts) - len(missing)} of {len(parts)} held, {held:,} bytes; {len(missing)} missing")


def _when(stamp: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stamp))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
