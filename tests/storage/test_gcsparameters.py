"""The parameters of Google Cloud Storage: Docker Registry's names and defaults, and what cannot work is refused."""

import pytest

from msrcache import __version__
from msrcache.storage.gcsparameters import EMULATOR, GcsParameters, parameters
from msrcache.storage.parameters import ParameterError

MINIMAL = {"bucket": "cache"}


@pytest.fixture(autouse=True)
def _no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EMULATOR, raising=False)


def test_defaults_are_docker_registrys() -> None:
    """The bucket suffices; everything else is as there."""
    found = parameters(MINIMAL)
    assert found == GcsParameters(bucket="cache")
    assert (found.chunksize, found.maxconcurrency) == (20 * 256 * 1024, 50)
    assert (found.keyfile, found.credentials, found.rootdirectory) == ("", {}, "")
    assert (found.endpoint, found.useragent) == ("https://storage.googleapis.com", f"msrcache/{__version__}")
    assert (found.skipverify, found.anonymous, found.trusted) == (False, False, None)


def test_everything_can_be_given_as_text() -> None:
    """As variables of the environment are; the names in any case."""
    found = parameters(
        MINIMAL
        | {
            "KeyFile": "/certs/key.json", "rootdirectory": "/a/b/", "chunksize": "524288", "maxconcurrency": "100",
            "useragent": "x", "endpoint": "https://private.test:8443/", "ca": "/ca.pem", "skipverify": "true",
            "universedomain": "Example.test",
        }
    )  # fmt: skip
    assert (found.keyfile, found.rootdirectory, found.chunksize) == ("/certs/key.json", "a/b", 524288)
    assert (found.maxconcurrency, found.endpoint) == (100, "https://private.test:8443")
    assert (found.trusted, found.skipverify, found.universedomain) == ("/ca.pem", True, "example.test")


def test_another_universe_has_its_own_endpoint() -> None:
    """Unless one is named."""
    assert (
        parameters(MINIMAL | {"universedomain": "sovereign.test"}).endpoint
        == "https://storage.sovereign.test"
    )


def test_few_at_once_are_as_many_as_docker_registry_takes() -> None:
    """Less than 25 count as 25."""
    assert parameters(MINIMAL | {"maxconcurrency": 3}).maxconcurrency == 25


@pytest.mark.parametrize("host", ["127.0.0.1:4443", "http://127.0.0.1:4443"])
def test_an_emulator_of_the_environment(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """As Google's libraries find it; nothing is sent to it that says who we are, unless a key is configured."""
    monkeypatch.setenv(EMULATOR, host)
    found = parameters(MINIMAL)
    assert (found.endpoint, found.anonymous) == ("http://127.0.0.1:4443", True)
    assert not parameters(MINIMAL | {"credentials": {"type": "service_account"}}).anonymous
    assert parameters(MINIMAL | {"endpoint": "https://other.test"}).endpoint == "https://other.test"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "storage.gcs.bucket is missing"),
        ({"bucket": "gs://cache"}, "bucket should be a bucket's name, without gs://"),
        (MINIMAL | {"chunksize": 256 * 1024 + 1}, "chunksize should be a multiple of 262144 bytes"),
        (MINIMAL | {"chunksize": 0}, "chunksize should be a multiple"),
        (MINIMAL | {"chunksize": 2 << 30}, "chunksize should be a multiple of 262144 bytes, at most"),
        (MINIMAL | {"maxconcurrency": "many"}, "maxconcurrency should be a whole number"),
        (
            MINIMAL | {"keyfile": "/k", "credentials": {"type": "x"}},
            "keyfile and credentials exclude each other",
        ),
        (MINIMAL | {"credentials": "text"}, "credentials should be a map"),
        (MINIMAL | {"credentials": {"private_key": "x"}}, "credentials should say its type"),
        (MINIMAL | {"endpoint": "ftp://x"}, "endpoint should be https://host"),
        (MINIMAL | {"endpoint": "https://x/storage/v1"}, "endpoint should be https://host"),
        (MINIMAL | {"universedomain": "x/y"}, "universedomain should be a domain"),
        (MINIMAL | {"buket": "x"}, "did you mean bucket"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, object], sentence: str) -> None:
    """One sentence, with the parameter's name; never a value."""
    with pytest.raises(ParameterError, match=sentence):
        parameters(given)


def test_no_secret_is_shown() -> None:
    """Not in the representation that ends up in logs."""
    found = parameters(MINIMAL | {"credentials": {"type": "service_account", "private_key": "TOPSECRET"}})
    assert "TOPSECRET" not in repr(found)
