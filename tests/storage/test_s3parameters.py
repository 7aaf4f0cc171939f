"""The S3 driver's parameters: Docker Registry's names and defaults, and a sentence for what cannot work."""

from pathlib import Path

import pytest

from msrcache import __version__
from msrcache.storage.parameters import ParameterError
from msrcache.storage.s3parameters import SYSTEM_AUTHORITIES, S3Parameters, parameters

MINIMAL = {"region": "eu-west-3", "bucket": "cache"}


def test_defaults_are_docker_registrys() -> None:
    """Region and bucket suffice; everything else is as there."""
    found = parameters(MINIMAL)
    assert found == S3Parameters(bucket="cache", region="eu-west-3")
    assert (found.secure, found.v4auth, found.skipverify, found.encrypt) == (True, True, False, False)
    assert (found.chunksize, found.storageclass, found.objectacl) == (10 * 1024 * 1024, "STANDARD", "private")
    assert (found.forcepathstyle, found.usedualstack, found.accelerate, found.usefipsendpoint) == (False,) * 4
    assert (found.loglevel, found.useragent, found.rootdirectory) == ("off", f"msrcache/{__version__}", "")


def test_a_service_of_ones_own_needs_no_region_and_is_asked_by_path() -> None:
    """As in Docker Registry 2.8; forcepathstyle false is obeyed all the same."""
    found = parameters({"bucket": "cache", "regionendpoint": "http://127.0.0.1:9000"})
    assert (found.region, found.forcepathstyle) == ("us-east-1", True)
    assert not parameters(
        {"bucket": "cache", "regionendpoint": "http://x", "forcepathstyle": "false"}
    ).forcepathstyle


@pytest.mark.parametrize(("secure", "url"), [("true", "https://s3.test:9"), ("false", "http://s3.test:9")])
def test_an_endpoint_without_a_scheme_follows_secure(secure: str, url: str) -> None:
    """`secure` says which; a scheme that is written stands."""
    given = {"bucket": "cache", "regionendpoint": "s3.test:9", "secure": secure}
    assert parameters(given).regionendpoint == url
    assert parameters(given | {"regionendpoint": "http://a"}).regionendpoint == "http://a"


def test_everything_can_be_given_as_text() -> None:
    """As variables of the environment are; the names in any case; what copies in parts is accepted and unused."""
    found = parameters(
        MINIMAL
        | {
            "AccessKey": "A", "secretkey": "S", "sessiontoken": "T", "encrypt": "true", "keyid": "K",
            "chunksize": "5242880", "rootdirectory": "/a/b/", "storageclass": "intelligent_tiering",
            "objectacl": "bucket-owner-full-control", "useragent": "x", "usedualstack": "true",
            "accelerate": "true", "usefipsendpoint": "true", "loglevel": "Debug", "ca": "/ca.pem",
            "multipartcopychunksize": "33554432", "multipartcopymaxconcurrency": "100",
            "multipartcopythresholdsize": "33554432", "skipverify": "true",
        }
    )  # fmt: skip
    assert (found.rootdirectory, found.chunksize, found.traced) == ("a/b", 5 << 20, True)
    assert found.written() == {
        "StorageClass": "INTELLIGENT_TIERING",
        "ACL": "bucket-owner-full-control",
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "K",
    }


def test_what_is_the_services_own_default_is_not_said() -> None:
    """A bucket without ACLs refuses to be told private; storageclass NONE is for services without classes."""
    assert parameters(MINIMAL | {"storageclass": "none"}).written() == {}
    assert parameters(MINIMAL | {"encrypt": True}).written() == {
        "StorageClass": "STANDARD",
        "ServerSideEncryption": "AES256",
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"region": "eu-west-3"}, "storage.s3.bucket is missing"),
        ({"bucket": "cache"}, "storage.s3.region is missing"),
        (MINIMAL | {"region": "Paris!"}, "region should be a region"),
        (MINIMAL | {"accesskey": "A"}, "accesskey need each other"),
        (MINIMAL | {"sessiontoken": "T"}, "sessiontoken needs accesskey"),
        (MINIMAL | {"keyid": "K"}, "keyid needs encrypt"),
        (MINIMAL | {"v4auth": "false"}, "only with a regionendpoint"),
        (MINIMAL | {"chunksize": "5242879"}, "chunksize should be a whole number of bytes from 5242880"),
        (MINIMAL | {"chunksize": str((5 << 30) + 1)}, "chunksize should be"),
        (MINIMAL | {"storageclass": "GLACIER"}, "storageclass should be one of STANDARD"),
        (MINIMAL | {"objectacl": "all"}, "objectacl should be one of private"),
        (MINIMAL | {"loglevel": "loud"}, "loglevel should be one of off"),
        (MINIMAL | {"accelerate": "true", "regionendpoint": "http://x"}, "accelerate is Amazon's own"),
        (MINIMAL | {"bukket": "x"}, "did you mean bucket"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, object], sentence: str) -> None:
    """One sentence, with the parameter's name; never a value."""
    with pytest.raises(ParameterError, match=sentence):
        parameters(given)


def test_no_secret_is_shown() -> None:
    """Not in the representation that ends up in logs."""
    found = parameters(
        MINIMAL | {"accesskey": "AKIDSECRET", "secretkey": "TOPSECRET", "sessiontoken": "TOKEN"}
    )
    assert "SECRET" not in repr(found)
    assert "TOKEN" not in repr(found)


def test_the_systems_authorities_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's file, else the environment's, else what the system trusts: not a list of the SDK's own."""
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    there = [path for path in SYSTEM_AUTHORITIES if Path(path).exists()]
    assert parameters(MINIMAL).trusted == (there[0] if there else None)
    monkeypatch.setenv("SSL_CERT_FILE", "/env.pem")
    assert parameters(MINIMAL).trusted == "/env.pem"
    assert parameters(MINIMAL | {"ca": "/mine.pem"}).trusted == "/mine.pem"
