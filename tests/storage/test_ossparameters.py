"""The parameters of the OSS driver: names, defaults, addresses, and what is wrong with them in words."""

from pathlib import Path

import pytest

from msrcache.storage.oss import make
from msrcache.storage.ossparameters import DEFAULT_PART, MIB, Address, OssParameters, parameters
from msrcache.storage.parameters import ParameterError

GIVEN = {"region": "oss-cn-hangzhou", "bucket": "cache", "accesskeyid": "LTAI", "accesskeysecret": "SECRET"}


def test_the_section_of_docker_registry() -> None:
    """Its names, its defaults, text for numbers and booleans; the region as its SDK names it."""
    found = parameters({**GIVEN, "chunksize": "10485760", "rootdirectory": "/a/b/", "encrypt": "true"})
    assert found == OssParameters(
        bucket="cache",
        region="cn-hangzhou",
        accesskeyid="LTAI",
        accesskeysecret="SECRET",
        chunksize=DEFAULT_PART,
        rootdirectory="a/b",
        encrypt=True,
    )


def test_the_defaults() -> None:
    """Without keys an identity is looked for."""
    found = parameters({"region": "cn-hangzhou", "bucket": "cache"})
    assert (found.accesskeyid, found.internal, found.encrypt, found.secure) == ("", False, False, True)
    assert found.chunksize == 10 * MIB


@pytest.mark.parametrize(
    ("more", "url", "style"),
    [
        ({}, "https://oss-cn-hangzhou.aliyuncs.com", "virtual"),
        ({"internal": True}, "https://oss-cn-hangzhou-internal.aliyuncs.com", "virtual"),
        ({"secure": False}, "http://oss-cn-hangzhou.aliyuncs.com", "virtual"),
        ({"endpoint": "oss-accelerate.aliyuncs.com"}, "https://oss-accelerate.aliyuncs.com", "virtual"),
        ({"endpoint": "cache.oss-cn-beijing.aliyuncs.com"}, "https://oss-cn-beijing.aliyuncs.com", "virtual"),
        ({"endpoint": "https://cache.oss.test:8443"}, "https://oss.test:8443", "virtual"),
        ({"endpoint": "blobs.example.com"}, "https://blobs.example.com", "domain"),
        ({"endpoint": "http://blobs.example.com/"}, "http://blobs.example.com", "domain"),
        ({"endpoint": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000", "path"),
        ({"endpoint": "http://localhost:9000", "forcepathstyle": True}, "http://localhost:9000", "path"),
    ],
)
def test_where_the_service_is(more: dict[str, object], url: str, style: str) -> None:
    """By region, internal or not; another host as a region's, with the bucket as 2.8 tells it, or as its own domain."""
    assert parameters({**GIVEN, **more}).address() == Address(url, style)


def test_where_somebody_else_reaches_it() -> None:
    """An endpoint for URLs is read as the configured one is."""
    found = parameters({**GIVEN, "internal": True})
    assert found.address("https://oss-cn-hangzhou.aliyuncs.com").style == "virtual"
    assert found.address("https://blobs.example.com").style == "domain"


def test_where_roles_get_credentials() -> None:
    """In the region, over its internal network where told so, or where the operator says."""
    assert parameters(GIVEN).tokens == "https://sts.cn-hangzhou.aliyuncs.com"
    assert parameters({**GIVEN, "internal": True}).tokens == "https://sts-vpc.cn-hangzhou.aliyuncs.com"
    assert parameters({**GIVEN, "stsendpoint": "sts.test"}).tokens == "https://sts.test"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"region": ""}, "storage.oss.region is missing"),
        ({"bucket": ""}, "storage.oss.bucket is missing"),
        ({"region": "CN Hangzhou"}, "region should be a region such as oss-cn-hangzhou"),
        ({"bucket": "Cache"}, "bucket should be a bucket's name"),
        ({"accesskeysecret": ""}, "accesskeysecret and accesskeyid need each other"),
        ({"accesskeyid": "", "accesskeysecret": "", "securitytoken": "t"}, "securitytoken needs accesskeyid"),
        ({"ramrole": "cache"}, "ramrole and accesskeyid exclude each other"),
        ({"endpoint": "oss.test/path"}, "endpoint should be a host"),
        ({"endpoint": "ftp://oss.test"}, "endpoint should be a host"),
        ({"chunksize": 5 * MIB - 1}, "chunksize should be a whole number of bytes from 5242880"),
        ({"internal": "perhaps"}, "internal should be true or false"),
        ({"acesskeyid": "x"}, "did you mean accesskeyid"),
    ],
)
def test_what_is_wrong_is_said(more: dict[str, object], said: str) -> None:
    """Which parameter, and what would be right; no value is shown."""
    with pytest.raises(ParameterError, match=said) as refused:
        parameters({**GIVEN, **more})
    assert "SECRET" not in str(refused.value)


def test_nothing_secret_is_shown() -> None:
    """Neither by the parameters nor by the driver."""
    made = make({**GIVEN, "securitytoken": "TOKEN"})
    for shown in (repr(made), repr(parameters(GIVEN)), repr(made.__dict__)):
        assert not any(secret in shown for secret in ("SECRET", "TOKEN", "LTAI"))


def test_a_bad_authority_is_told_at_the_start(tmp_path: Path) -> None:
    """A file that is not there, and one that holds no certificate."""
    folder = tmp_path
    (folder / "ca.pem").write_text("no certificate")
    with pytest.raises(ParameterError, match="holds no PEM certificate"):
        make({**GIVEN, "ca": str(folder / "ca.pem")})
    with pytest.raises(ParameterError, match="cannot be read: No such file"):
        make({**GIVEN, "ca": str(folder / "none.pem")})
