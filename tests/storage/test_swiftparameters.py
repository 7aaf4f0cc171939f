"""The Swift driver's parameters: Docker Registry's names and defaults, and a sentence for what cannot work."""

from pathlib import Path

import pytest

from msrcache import __version__
from msrcache.storage.parameters import ParameterError
from msrcache.storage.swiftparameters import ENVIRONMENT, SYSTEM_AUTHORITIES, SwiftParameters, parameters

MINIMAL = {
    "authurl": "https://keystone.test:5000/v3",
    "username": "cache",
    "password": "s3cret",
    "container": "registry",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what OpenStack's clients would find."""
    for names in ENVIRONMENT.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


def test_defaults_are_docker_registrys() -> None:
    """What it required suffices; everything else is as there."""
    found = parameters(MINIMAL)
    expected = SwiftParameters(
        container="registry", authurl=MINIMAL["authurl"], username="cache", password="s3cret"
    )
    assert found == expected
    assert (found.chunksize, found.insecureskipverify, found.endpointtype) == (20 << 20, False, "public")
    assert (found.prefix, found.useragent, found.authversion) == ("", f"msrcache/{__version__}", 0)


def test_everything_can_be_given_as_text() -> None:
    """As variables of the environment are; the names in any case, whole numbers for names too."""
    found = parameters(
        MINIMAL
        | {
            "Tenant": 42, "tenantid": "id", "domain": "D", "domainid": "did", "tenantdomain": "TD",
            "tenantdomainid": "tdid", "trustid": "t", "region": "R", "authversion": "3",
            "endpointtype": "internalURL", "insecureskipverify": "true", "chunksize": "1048576",
            "secretkey": "sign", "accesskey": "hp", "tempurlcontainerkey": "false",
            "tempurlmethods": "GET, head", "prefix": "/a/b", "useragent": "x", "ca": "/ca.pem",
        }
    )  # fmt: skip
    assert (found.tenant, found.authversion, found.endpointtype) == ("42", 3, "internal")
    assert (found.chunksize, found.prefix, found.tempurlmethods) == (1 << 20, "a/b", ("GET", "HEAD"))
    assert not found.tempurlcontainerkey
    assert parameters(MINIMAL | {"tempurlmethods": ["GET"]}).tempurlmethods == ("GET",)


def test_rootdirectory_has_no_effect() -> None:
    """Docker Registry's sample shows it and its code never read it: a file that has it means the same as before."""
    assert parameters(MINIMAL | {"rootdirectory": "/below"}) == parameters(MINIMAL)


@pytest.mark.parametrize(
    ("authurl", "version"),
    [
        ("http://swift.test/auth/v1.0", 1),
        ("http://swift.test/auth/v1", 1),
        ("https://keystone.test/v2.0", 2),
        ("https://keystone.test/v2.0/", 2),
        ("https://keystone.test/identity/v3", 3),
        ("https://keystone.test:5000", 0),
        ("https://v3.keystone.test/", 0),
    ],
)
def test_the_version_is_that_of_the_url(authurl: str, version: int) -> None:
    """Unless it is said; without either, Keystone is asked."""
    assert parameters(MINIMAL | {"authurl": authurl}).version == version
    assert parameters(MINIMAL | {"authurl": authurl, "authversion": 2}).version == 2


def test_an_application_credential_needs_no_user() -> None:
    """By its id; by its name it needs the user's."""
    given = {"authurl": MINIMAL["authurl"], "container": "registry", "applicationcredentialsecret": "x"}
    found = parameters(given | {"applicationcredentialid": "abc"})
    assert (found.version, found.applicationcredential, found.secret()) == (3, "abc", "x")
    with pytest.raises(ParameterError, match="needs username"):
        parameters(given | {"applicationcredentialname": "cache"})


def test_a_password_may_stand_in_a_file(tmp_path: Path) -> None:
    """Read each time it is needed, without the line's end."""
    path = tmp_path / "password"
    path.write_text("first\n")
    found = parameters({**MINIMAL, "password": "", "passwordfile": str(path)})
    assert found.secret() == "first"
    path.write_text("second")
    assert found.secret() == "second"


def test_the_environment_is_asked_where_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenStack's and Swift's own clients do; what the parameters say stands; with a user none of it counts."""
    for name, value in (("OS_AUTH_URL", "https://k.test/v3"), ("OS_USERNAME", "u"), ("OS_PASSWORD", "p")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OS_PROJECT_NAME", "t")
    found = parameters({"container": "c", "tenant": "mine"})
    assert (found.authurl, found.username, found.password) == ("https://k.test/v3", "u", "p")
    assert found.tenant == "mine"
    assert parameters(MINIMAL).tenant == ""


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"container": "c"}, "storage.swift.authurl is missing"),
        ({**MINIMAL, "container": ""}, "storage.swift.container is missing"),
        ({**MINIMAL, "username": ""}, "storage.swift.username is missing"),
        ({**MINIMAL, "password": ""}, "password is missing; or give passwordfile"),
        (MINIMAL | {"authurl": "keystone.test"}, "authurl should be a URL"),
        (MINIMAL | {"container": "a/b"}, "container should be a name without slashes"),
        (MINIMAL | {"authversion": "4"}, "authversion should be 1, 2 or 3"),
        (MINIMAL | {"authversion": "1", "trustid": "t"}, "trustid needs Keystone"),
        (MINIMAL | {"endpointtype": "private"}, "endpointtype should be one of public"),
        (MINIMAL | {"chunksize": "1048575"}, "chunksize should be a whole number of bytes from 1048576"),
        (MINIMAL | {"chunksize": str((5 << 30) + 1)}, "chunksize should be"),
        (MINIMAL | {"prefix": "p" * 49}, "prefix should be at most 48 bytes"),
        (MINIMAL | {"tempurlmethods": {"GET": 1}}, "tempurlmethods should be a list of words"),
        (MINIMAL | {"contaner": "x"}, "did you mean container"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, object], sentence: str) -> None:
    """One sentence, with the parameter's name; never a value."""
    with pytest.raises(ParameterError, match=sentence) as refused:
        parameters(given)
    assert "s3cret" not in str(refused.value)


def test_no_secret_is_shown() -> None:
    """Not in the representation that ends up in logs."""
    found = parameters(MINIMAL | {"secretkey": "SIGNS"})
    assert "s3cret" not in repr(found)
    assert "SIGNS" not in repr(found)


def test_the_systems_authorities_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's file, else the environment's, else what the system trusts: not a list of the library's own."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    there = [path for path in SYSTEM_AUTHORITIES if Path(path).exists()]
    assert parameters(MINIMAL).trusted == (there[0] if there else None)
    monkeypatch.setenv("SSL_CERT_FILE", "/env.pem")
    assert parameters(MINIMAL).trusted == "/env.pem"
    assert parameters(MINIMAL | {"ca": "/mine.pem"}).trusted == "/mine.pem"
