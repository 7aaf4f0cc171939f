"""server.limits: how many connections there may be."""

import resource

from msrcache.server.limits import ConnectionLimits, connections_for, counted_as, raise_descriptor_limit


def test_places_end_at_the_total() -> None:
    """The connection beyond the total finds no place; one that leaves makes room."""
    limits = ConnectionLimits(total=2)
    first, second = limits.take(), limits.take()
    assert first is not None
    assert second is not None
    assert limits.take() is None
    first.release()
    assert limits.take() is not None


def test_a_place_is_given_back_once() -> None:
    """Releasing twice makes room for one."""
    limits = ConnectionLimits(total=1)
    place = limits.take()
    assert place is not None
    place.release()
    place.release()
    assert limits.open == 0


def test_an_address_has_its_share() -> None:
    """One address cannot take all; another still finds a place, and leaving gives it back."""
    limits = ConnectionLimits(total=10, per_address=2)
    places = [limits.take() for _ in range(4)]
    assert [place is not None and place.claim("192.0.2.1") for place in places[:3]] == [True, True, False]
    assert places[3] is not None
    assert places[3].claim("192.0.2.2")
    assert places[0] is not None
    places[0].release()
    again = limits.take()
    assert again is not None
    assert again.claim("192.0.2.1")


def test_no_share_means_no_limit() -> None:
    """0 per address lets one address take all."""
    limits = ConnectionLimits(total=3)
    assert all(place is not None and place.claim("192.0.2.1") for place in [limits.take() for _ in range(3)])


def test_ipv6_is_counted_by_its_network() -> None:
    """Whoever has a /64 does not get a share for each address in it; IPv4 and nonsense stay themselves."""
    assert counted_as("2001:db8:0:1::1") == counted_as("2001:db8:0:1:ffff::2")
    assert counted_as("2001:db8:0:1::1") != counted_as("2001:db8:0:2::1")
    assert counted_as("192.0.2.1") == "192.0.2.1"
    assert counted_as("not:an:address") == "not:an:address"


def test_connections_follow_the_descriptors() -> None:
    """Most connections hold a file too, some descriptors are kept for the rest, and it is never none at all."""
    assert connections_for(18_512) == 10_000
    assert connections_for(100) == 64


def test_the_descriptor_limit_is_raised() -> None:
    """The soft limit becomes the hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
    try:
        assert raise_descriptor_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_limits_change_for_those_who_come() -> None:
    """Lower limits do not close what is open."""
    limits = ConnectionLimits(total=2)
    kept = [limits.take(), limits.take()]
    limits.change(total=1, per_address=1)
    assert all(kept)
    assert limits.open == 2
    assert limits.take() is None
    assert repr(limits) == "<ConnectionLimits 2 of 1, 0 addresses>"
