"""WWW-Authenticate is read as RFC 9110 writes it, and nothing that a stranger sends raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.upstream.challenge import parse_challenges

TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
names = st.text(TOKEN, min_size=1, max_size=12)
quotable = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30
)


def test_dockers_challenge() -> None:
    """The challenge of a token-protected registry, with commas and colons in its quoted values."""
    header = 'Bearer realm="https://a.example/t?x=1",service="reg:5000",scope="repository:a/b:pull,push"'
    (found,) = parse_challenges([header])
    assert (found.scheme, found.realm) == ("bearer", "https://a.example/t?x=1")
    assert (found.service, found.scope) == ("reg:5000", "repository:a/b:pull,push")


@pytest.mark.parametrize(
    ("headers", "schemes"),
    [
        (["Basic realm=x, Bearer realm=y"], ["basic", "bearer"]),
        (["Basic realm=x", 'Bearer realm="y"'], ["basic", "bearer"]),
        (['Bearer realm="y",scope="a b", Basic'], ["bearer", "basic"]),
        (["Negotiate, Basic realm=x"], ["negotiate", "basic"]),
        (["Negotiate abc123==, Basic realm=x"], ["negotiate", "basic"]),
        (["Negotiate abc/+123, Basic realm=x"], ["negotiate", "basic"]),
        ([",, ,Basic realm=x,,"], ["basic"]),
        ([], []),
        (["="], []),
        (['"quoted, nonsense", Basic realm=x'], ["basic"]),
    ],
)
def test_several_in_one_header_or_in_several(headers: list[str], schemes: list[str]) -> None:
    """Order is kept, nonsense is left out."""
    assert [challenge.scheme for challenge in parse_challenges(headers)] == schemes


def test_a_token68_is_kept() -> None:
    """Schemes like Negotiate carry one value without a name."""
    assert parse_challenges(["Negotiate YII+/=="])[0].token68 == "YII+/=="


def test_quotes_and_spaces() -> None:
    """Escapes are undone, spaces around = allowed, names in any case; the first of a name counts."""
    (found,) = parse_challenges([r'BEARER Realm = "a\"b\\c" , SCOPE=x, realm="second"'])
    assert found.parameters == {"realm": r"a\"b\c".replace(r"\"", '"'), "scope": "x"}


@given(st.lists(st.text(max_size=60), max_size=4))
def test_nothing_raises(headers: list[str]) -> None:
    """Any text at all is read without an error, and to an end."""
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower() != ""


@given(st.lists(st.tuples(names, st.dictionaries(names, quotable, min_size=1, max_size=4)), max_size=4))
def test_what_was_written_is_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    """Challenges round-trip through one header and through one header each."""

    def write(scheme: str, values: dict[str, str]) -> str:
        escaped = {n: v.replace("\\", "\\\\").replace('"', '\\"') for n, v in values.items()}
        return f"{scheme} " + ", ".join(f'{n}="{v}"' for n, v in escaped.items())

    lines = [write(*challenge) for challenge in challenges]
    for headers in (lines, [", ".join(lines)]):
        assert [(c.scheme, dict(c.parameters)) for c in parse_challenges(headers)] == challenges
