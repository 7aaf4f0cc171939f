"""The record of a rung: what is written is read, what is not known is ignored, what can't be read is somebody's."""

import json

import pytest

from msrcache.cache.leaserecord import LeaseRecord, decoded, rung_of
from msrcache.cache.leaserules import Rung

RECORD = LeaseRecord(replica="one-0a1b2c3d", nonce="n", address="10.0.0.1:7000", beat=3)


def test_a_record_comes_back() -> None:
    """Whole, and alive by one beat more."""
    assert decoded(RECORD.encoded()) == RECORD
    assert decoded(RECORD.beaten(4).encoded()).beat == 4
    assert json.loads(RECORD.encoded()) == {
        "v": 1,
        "replica": "one-0a1b2c3d",
        "nonce": "n",
        "peer": "10.0.0.1:7000",
        "beat": 3,
        "state": "held",
    }


def test_fields_that_are_not_known_are_ignored() -> None:
    """A later version may add some."""
    fields = json.loads(RECORD.encoded())
    assert decoded(json.dumps({**fields, "zone": {"a": 1}}).encode()) == RECORD


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"state": "lent"}, {"beat": "3"}, {"nonce": 7}, {"replica": None}]
)
def test_what_is_of_a_newer_version_is_held(change: dict[str, object]) -> None:
    """By somebody whose signs of life are changes of its bytes."""
    data = json.dumps({**json.loads(RECORD.encoded()), **change}).encode()
    record = decoded(data)
    assert not record.known
    assert rung_of(record, "n") is Rung.NEWER
    assert decoded(data) == record
    assert decoded(data + b" ").nonce != record.nonce


def test_what_a_record_is_to_an_arrival() -> None:
    """Its own, another's, released, or none."""
    released = LeaseRecord(replica="one", nonce="n", released=True)
    assert rung_of(None, "n") is Rung.MISSING
    assert rung_of(RECORD, "n") is Rung.OWN
    assert rung_of(RECORD, "other") is Rung.HELD
    assert rung_of(decoded(released.encoded()), "n") is Rung.RELEASED
