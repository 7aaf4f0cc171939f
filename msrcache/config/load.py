"""Loading: the file, the environment over it, the model, and everything that is to be said, all at once.

It reads one small file and blocks while it does: at start, in the commands, and in a thread on SIGHUP.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msrcache.config import environment
from msrcache.config.document import EMPTY, LARGEST, Block, Listing, Node, Scalar, plain, read
from msrcache.config.masking import shown
from msrcache.config.model import Config
from msrcache.config.problem import ConfigError, KeyPath, Kind, Place, Problem, dotted
from msrcache.config.rules import Finding, findings
from msrcache.config.storage import PORTABLE, driver_trouble
from msrcache.config.survey import Survey
from msrcache.config.validate import validate

EMBEDDED: Final = "embedded defaults"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, where it came from, and the warnings and ignored keys to be told."""

    config: Config
    problems: tuple[Problem, ...]
    source: str


def configuration_path(argument: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the command's argument, else REGISTRY_CONFIGURATION_PATH, else none."""
    named = environ.get(environment.PATH_VARIABLE)
    return argument or (Path(named) if named else None)


def load(path: Path | None, environ: Mapping[str, str], *, strict: bool = False) -> Loaded:
    """The configuration of a file (None: the embedded defaults) under the environment's REGISTRY_* variables.

    strict makes unknown keys errors everywhere. Raises ConfigError with all errors.
    """
    if path is None:
        return _built(Block(EMPTY, Place(EMBEDDED)), EMBEDDED, environ, strict=strict)
    return parse(_text(path), str(path), environ, strict=strict)


def parse(text: str, source: str, environ: Mapping[str, str], *, strict: bool = False) -> Loaded:
    """Like load, for text that is already there; `source` is its name in messages. Raises ConfigError."""
    node, problems = read(text, source)
    if isinstance(node, Block):
        return _built(node, source, environ, strict=strict, problems=problems)
    if not problems:
        words = (
            "is empty" if node is None or isinstance(node, Scalar) else "should be a map of keys, not a list"
        )
        problems = [
            Problem(Kind.ERROR, Place(source, 1, 1), "", f"{words}: it should begin with version: 0.1")
        ]
    raise ConfigError(problems)


def _text(path: Path) -> str:
    place = Place(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(4 * LARGEST + 1)
        if len(data) > 4 * LARGEST:
            raise ConfigError([Problem(Kind.ERROR, place, "", "is too large to be a configuration")])
        return data.decode("utf-8-sig")
    except (OSError, ValueError) as cause:
        words = cause.strerror if isinstance(cause, OSError) else "it should be text in UTF-8"
        raise ConfigError([Problem(Kind.ERROR, place, "", f"cannot be read: {words}")]) from cause


def _built(
    tree: Block,
    source: str,
    environ: Mapping[str, str],
    *,
    strict: bool,
    problems: list[Problem] | None = None,
) -> Loaded:
    said = [*(problems or []), *_version(tree, source)]
    tree, more = environment.apply(tree, environ)
    said += more
    tree, refused = _one_driver(_bare_words(tree), source, said)
    survey = Survey(strict=strict)
    tree = survey.known(tree, Config)
    config, errors, taken = validate(tree)
    said += [*survey.problems, *errors]
    doubted = taken | refused
    said += [_placed(tree, finding) for finding in findings(config) if not _rests_on(finding, doubted)]
    said.sort(key=lambda problem: (problem.place.line or 0, problem.place.column or 0))
    if any(problem.kind is Kind.ERROR for problem in said):
        raise ConfigError(said)
    return Loaded(config, tuple(said), source)


def _version(tree: Block, source: str) -> list[Problem]:
    if source == EMBEDDED:
        return []
    written = tree.entries.get("version")
    if written is not None and plain(written.node) is not None:
        return []
    place = written.place if written else tree.place
    return [Problem(Kind.ERROR, place, "version", "is required: version: 0.1")]


def _bare_words(tree: Block) -> Block:
    for key in ("storage", "auth"):
        node = environment.one_word(tree.child(key), environment.SECTIONS[key])
        if node is not None:
            tree = tree.having(key, node, tree.entries[key].place)
    return tree


def _one_driver(tree: Block, source: str, said: list[Problem]) -> tuple[Block, frozenset[KeyPath]]:
    """The tree with exactly one storage driver, the default standing in where the file's cannot be used."""
    found = tree.child("storage")
    storage = found if isinstance(found, Block) else Block(EMPTY, found.place if found else tree.place)
    names = [key for key in storage.entries if key not in PORTABLE]
    trouble = driver_trouble(names)
    place = storage.entries[names[-1]].place if names else storage.place
    if trouble is None and not isinstance(storage.child(names[0]), Block):
        node = storage.child(names[0])
        trouble = (
            None if isinstance(node, Scalar) and node.text is None else "should hold the driver's parameters"
        )
    if trouble is None:
        return tree, frozenset()
    tree = tree.having("storage", storage.without(*names), storage.place)
    if not names and source == EMBEDDED:
        return tree, frozenset()
    if any(storage.entries[name].place.line is None for name in names) and len(names) > 1:
        trouble += "; a variable REGISTRY_STORAGE=<driver> replaces the driver of the file"
    said.append(Problem(Kind.ERROR, place, "storage", trouble))
    return tree, frozenset({("storage", "parameters")})


def _rests_on(finding: Finding, taken: frozenset[KeyPath]) -> bool:
    return any(key[: len(gone)] == gone for key in finding.keys for gone in taken)


def _placed(tree: Block, finding: Finding) -> Problem:
    """A finding at the first of its keys that stands in the file, else at the nearest section above."""
    places = [_place(tree, key) for key in finding.keys]
    exact = [place for place, depth, length in places if depth == length]
    place = exact[0] if exact else max(places, key=lambda found: found[1])[0]
    value = None if finding.value is None else shown(finding.value, finding.keys[0])
    return Problem(finding.kind, place, dotted(finding.keys[0]), finding.message, value)


def _place(tree: Block, key: KeyPath) -> tuple[Place, int, int]:
    """The place of the deepest part of a key that is there, how deep it is, and how deep it could be."""
    node: Node = tree
    place = tree.place
    for depth, part in enumerate(key):
        if isinstance(node, Block) and part in node.entries:
            entry = node.entries[str(part)]
            node, place = entry.node, entry.place
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            place = node.place
        else:
            return place, depth, len(key)
    return place, len(key), len(key)
