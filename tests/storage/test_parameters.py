"""A driver's parameters are taken one by one, and what nobody takes is refused."""

import pytest

from msrcache.storage.parameters import ParameterError, Parameters


def test_values_come_as_text_or_typed() -> None:
    """config.yml gives text, code may give types: both are read, keys in any case."""
    given = Parameters(
        "d", {"Name": "x", "size": "7", "count": 8, "on": "true", "off": False, "map": {"a": 1}}
    )
    assert given.text("name") == "x"
    assert (given.whole("size", 0), given.whole("count", 0)) == (7, 8)
    assert (given.flag("on", default=False), given.flag("off", default=True)) == (True, False)
    assert given.mapping("map") == {"a": 1}
    given.done()


def test_defaults_stand_where_nothing_is_given() -> None:
    """Absent, empty and null are the same."""
    given = Parameters("d", {"empty": "", "null": None})
    for name in ("empty", "null", "absent"):
        assert (given.text(name, "x"), given.whole(name, 5), given.flag(name, default=True)) == ("x", 5, True)
    assert given.mapping("absent") is None
    given.done()


def test_a_required_parameter_is_missed_by_name() -> None:
    """The sentence says which."""
    with pytest.raises(ParameterError, match=r"storage\.s3\.bucket is missing"):
        Parameters("s3", {}).text("bucket")


@pytest.mark.parametrize("value", ["-1", "3", "many", "1.5", True, "\u0661"])
def test_a_wrong_number_says_what_would_be_right(value: object) -> None:
    """And never shows the value, which may be a secret in the wrong place."""
    with pytest.raises(
        ParameterError, match=r"storage\.d\.n should be a whole number of 4 or more"
    ) as refused:
        Parameters("d", {"n": value}).whole("n", 5, minimum=4)
    assert str(value) not in str(refused.value).replace("4 or more", "")


def test_wrong_kinds_are_refused() -> None:
    """A map is no text, text is no map, and maybe is no flag."""
    given = Parameters("d", {"a": {"b": 1}, "c": "text", "e": "maybe"})
    with pytest.raises(ParameterError, match="should be text"):
        given.text("a")
    with pytest.raises(ParameterError, match="should be a map"):
        given.mapping("c")
    with pytest.raises(ParameterError, match="should be true or false"):
        given.flag("e", default=True)


def test_unknown_parameters_are_refused_with_the_nearest() -> None:
    """All of them at once, with what there is."""
    given = Parameters("filesystem", {"rootdirectori": "/a", "zzz": "1"})
    given.text("rootdirectory", "/")
    with pytest.raises(ParameterError) as refused:
        given.done()
    for part in ("rootdirectori", "zzz", "there are: rootdirectory", "did you mean rootdirectory?"):
        assert part in str(refused.value)
