"""Configurations in text, as the tests of this package write them: a minimal file, and more below it."""

from collections.abc import Mapping

from msrcache.config.load import Loaded, parse
from msrcache.config.problem import ConfigError, Kind, Problem

HEAD = "version: 0.1\nstorage: inmemory\nproxy: {remoteurl: https://msr.example.com}\n"
"""A file without a single thing to say about it. What follows it begins in line 4."""


def loaded(text: str = "", environ: Mapping[str, str] | None = None, *, strict: bool = False) -> Loaded:
    """What HEAD and the text say."""
    return parse(HEAD + text, "config.yml", environ or {}, strict=strict)


def bare(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    """What the text says alone."""
    return parse(text, "config.yml", environ or {})


def errors(text: str, environ: Mapping[str, str] | None = None, *, strict: bool = False) -> list[Problem]:
    """The errors of HEAD and the text; none where it can be used."""
    try:
        loaded(text, environ, strict=strict)
    except ConfigError as cause:
        return [problem for problem in cause.problems if problem.kind is Kind.ERROR]
    return []


def refusal(text: str, environ: Mapping[str, str] | None = None) -> Problem:
    """The one error of HEAD and the text."""
    (problem,) = errors(text, environ)
    return problem


def warnings(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The warnings of HEAD and the text, as they are printed."""
    return [str(problem) for problem in loaded(text, environ).problems if problem.kind is Kind.WARNING]
