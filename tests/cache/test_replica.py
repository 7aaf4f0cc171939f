"""What a process is called among the replicas."""

import pytest

from msrcache.cache.replica import new_replica_id


def test_two_lives_of_one_host_have_two_names() -> None:
    """Records of a dead process are not its successor's."""
    assert new_replica_id("node-1") != new_replica_id("node-1")


@pytest.mark.parametrize("host", ["node 1/../é", "", "-", "x" * 300])
def test_a_name_is_safe_everywhere(host: str) -> None:
    """It stands in keys, URLs and labels."""
    name = new_replica_id(host)
    assert len(name) <= 72
    assert name.isascii()
    assert not set(name) & set("/ ?&%")
