"""Salts are good once, in bounded memory."""

from msrcache.server.salts import Salts


def test_a_salt_is_good_once_in_its_scope() -> None:
    """Said again it is refused; another fill's requests are another scope."""
    salts = Salts()
    assert salts.spend("a", "1")
    assert not salts.spend("a", "1")
    assert salts.spend("b", "1")
    assert len(salts) == 2


def test_one_scope_is_bounded() -> None:
    """The oldest of it is forgotten, and the count stays right."""
    salts = Salts(each=3)
    for number in range(10):
        assert salts.spend("a", str(number))
    assert len(salts) == 3
    assert not salts.spend("a", "9")


def test_all_are_bounded_by_what_was_unused_for_longest() -> None:
    """A scope that is asked in stays; one that nobody asks in goes."""
    salts = Salts(total=3)
    for scope in ("a", "b", "c"):
        salts.spend(scope, "1")
    salts.spend("a", "2")
    assert len(salts) == 3
    assert not salts.spend("a", "1")
    assert salts.spend("b", "1")  # it was forgotten


def test_a_scope_in_use_is_not_forgotten() -> None:
    """However many others come: its fill is still under way, so what was said could be said again."""
    salts = Salts(total=2)
    with salts.kept("a"):
        salts.spend("a", "1")
        for scope in "bcdef":
            salts.spend(scope, "1")
        assert not salts.spend("a", "1")
    assert len(salts) == 2
    salts.spend("g", "1")
    salts.spend("h", "1")
    assert salts.spend("a", "1")


def test_more_in_use_than_may_be() -> None:
    """Then there are more, for as long as they are used."""
    salts = Salts(total=1)
    with salts.kept("a"), salts.kept("b"), salts.kept("a"):
        salts.spend("a", "1")
        salts.spend("b", "1")
        salts.spend("c", "1")
        assert len(salts) == 3
    salts.spend("d", "1")
    assert len(salts) == 1


def test_a_scope_can_be_given_up() -> None:
    """And that of a stranger too."""
    salts = Salts()
    salts.spend("a", "1")
    salts.forget("a")
    salts.forget("b")
    assert len(salts) == 0
