"""A problem is one line for a person, and one object for a program."""

from msrcache.config.problem import ConfigError, Kind, Place, Problem, dotted

WRONG = Problem(Kind.ERROR, Place("c.yml", 3, 5), "http.addr", "should be host:port", "5000")
DOUBT = Problem(Kind.WARNING, Place("environment variable REGISTRY_X"), "", "names no key")


def test_a_problem_is_one_line() -> None:
    """Place, kind, key, what would be right, what is there."""
    assert str(WRONG) == 'c.yml:3:5: error: http.addr: should be host:port, here is "5000"'
    assert str(DOUBT) == "environment variable REGISTRY_X: warning: names no key"


def test_a_problem_is_an_object_for_programs() -> None:
    """The same fields, with none where there is nothing."""
    assert WRONG.as_json() == {
        "kind": "error",
        "source": "c.yml",
        "line": 3,
        "column": 5,
        "key": "http.addr",
        "value": "5000",
        "message": "should be host:port",
    }
    assert DOUBT.as_json()["line"] is None


def test_the_error_says_its_errors_and_carries_the_rest() -> None:
    """Warnings are no reason to stop."""
    error = ConfigError([DOUBT, WRONG])
    assert str(error) == str(WRONG)
    assert error.problems == (DOUBT, WRONG)


def test_a_key_path_is_printable_and_bounded() -> None:
    """Whatever was written as a key."""
    assert dotted(("cache", "upstreams", 0, "url")) == "cache.upstreams[0].url"
    assert dotted((0, "a\n\x1bb")) == "[0].a??b"
    assert len(dotted(("x" * 1000,))) == 60
