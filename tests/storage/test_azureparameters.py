"""The Azure driver's parameters: Docker Registry's names and defaults, and a sentence for what cannot work."""

import pytest

from msrcache import __version__
from msrcache.storage.azureparameters import MIB, AzureParameters, Identity, parameters
from msrcache.storage.parameters import ParameterError

KEY = "c2VjcmV0LWtleQ=="
MINIMAL = {"accountname": "registrycache", "container": "blobs"}
WITH_KEY = MINIMAL | {"accountkey": KEY}
SAS = "sv=2023-11-03&ss=b&srt=co&sp=rwdlc&se=2030-01-02T03:04:05Z&sig=TOPSECRET"
CONNECTION = (
    f"DefaultEndpointsProtocol=https;AccountName=other;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"
)


def test_defaults_are_docker_registrys() -> None:
    """What version 2.8 requires suffices; everything else is as in version 3."""
    found = parameters(WITH_KEY)
    assert found == AzureParameters(
        account="registrycache",
        container="blobs",
        url="https://registrycache.blob.core.windows.net",
        identity=Identity(kind="shared_key", key=KEY),
    )
    assert (found.max_retries, found.retry_delay, found.skipverify) == (5, 0.1, False)
    assert (found.chunksize, found.adopt, found.rootdirectory) == (8 * MIB, "auto", "")
    assert found.useragent == f"msrcache/{__version__}"


def test_the_account_has_its_address_by_realm() -> None:
    """Azure of China and of governments; a serviceurl stands for itself."""
    assert parameters(WITH_KEY | {"realm": "core.usgovcloudapi.net"}).url == (
        "https://registrycache.blob.core.usgovcloudapi.net"
    )
    url = "http://127.0.0.1:10000/registrycache"
    assert parameters(WITH_KEY | {"serviceurl": f"{url}/"}).url == url


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("https://shop.blob.core.windows.net", "shop"),
        ("https://shop.blob.storage.azure.net/", "shop"),
        ("http://10.0.0.1:10000/devstoreaccount1", "devstoreaccount1"),
    ],
)
def test_the_account_is_read_from_its_address(url: str, account: str) -> None:
    """Where no name is given."""
    found = parameters({"container": "blobs", "serviceurl": url, "accountkey": KEY})
    assert found.account == account


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "default_credentials"),
        ({"accountkey": KEY}, "shared_key"),
        ({"sastoken": f"?{SAS}"}, "sas"),
        ({"serviceurl": f"https://registrycache.blob.core.windows.net/?{SAS}"}, "sas"),
        ({"connectionstring": CONNECTION}, "shared_key"),
        ({"connectionstring": f"BlobEndpoint=https://x.test/;SharedAccessSignature={SAS}"}, "sas"),
        ({"connectionstring": CONNECTION, "sastoken": SAS}, "sas"),
        ({"credentials": {"type": "shared_key"}, "accountkey": KEY}, None),
        ({"credentials": {"type": "shared_key", "secret": KEY}}, "shared_key"),
        ({"credentials": {"type": "default_credentials"}}, "default_credentials"),
        ({"credentials": {"type": "managed_identity", "clientid": "id"}}, "managed_identity"),
        ({"credentials": {"type": "workload_identity"}}, "workload_identity"),
        (
            {"credentials": {"type": "client_secret", "clientid": "a", "tenantid": "b", "secret": "c"}},
            "client_secret",
        ),
    ],
)
def test_who_we_are(given: dict[str, object], kind: str | None) -> None:
    """Every way to say it; the connection string is what is left."""
    assert parameters(MINIMAL | given).identity.kind == (kind or "shared_key")


def test_a_connection_string_is_taken_apart() -> None:
    """Account, key, address; what is said beside it wins."""
    found = parameters({"container": "blobs", "connectionstring": CONNECTION})
    assert (found.account, found.url) == ("other", "https://other.blob.core.chinacloudapi.cn")
    assert found.identity.key == KEY
    assert parameters(MINIMAL | {"connectionstring": CONNECTION}).account == "registrycache"


def test_when_a_signature_ends() -> None:
    """As it says; one with a stored access policy does not."""
    assert parameters(MINIMAL | {"sastoken": SAS}).identity.ends == 1893553445.0
    assert parameters(MINIMAL | {"sastoken": "si=policy&sig=x"}).identity.ends is None
    assert parameters(MINIMAL | {"sastoken": "se=never&sig=x"}).identity.ends is None


def test_everything_can_be_given_as_text() -> None:
    """As variables of the environment are; the names in any case."""
    found = parameters(
        WITH_KEY
        | {
            "RootDirectory": "/a/b/", "chunksize": "4194304", "adopt": "None", "max_retries": "2",
            "retry_delay": "1s", "skipverify": "true", "ca": "/ca.pem", "useragent": "x",
        }
    )  # fmt: skip
    assert (found.rootdirectory, found.chunksize, found.adopt) == ("a/b", 4 * MIB, "none")
    assert (found.max_retries, found.retry_delay, found.skipverify) == (2, 1.0, True)
    assert (found.ca, found.useragent) == ("/ca.pem", "x")


def test_only_a_key_makes_containers() -> None:
    """As Docker Registry 2.8, which knows nothing else; who comes with less finds what the operator made."""
    assert parameters(WITH_KEY).makes_container
    assert not parameters(MINIMAL | {"sastoken": SAS}).makes_container
    assert not parameters(MINIMAL).makes_container


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"accountname": "a1b"}, "storage.azure.container is missing"),
        ({"container": "blobs"}, "accountname is missing"),
        (MINIMAL | {"container": "Blobs"}, "container should be the name"),
        (MINIMAL | {"accountname": "a_b"}, "accountname should be the name"),
        (MINIMAL | {"accountkey": "not base64!"}, "accountkey should be a key of the account"),
        (WITH_KEY | {"sastoken": SAS}, "exclude each other"),
        (WITH_KEY | {"serviceurl": f"https://x.test/?{SAS}"}, "exclude each other"),
        (MINIMAL | {"connectionstring": "nonsense"}, "connectionstring should be as the portal shows it"),
        (MINIMAL | {"serviceurl": "http://x.test"}, "serviceurl needs https:// for an identity"),
        (MINIMAL | {"serviceurl": "ftp://x.test"}, "serviceurl should begin with https://"),
        (MINIMAL | {"serviceurl": "https://user:pw@x.test"}, "should hold no user and password"),
        (MINIMAL | {"credentials": {"type": "magic"}}, "azure.credentials.type should be one of shared_key"),
        (MINIMAL | {"credentials": {"type": "client_secret"}}, "credentials.clientid is missing"),
        (MINIMAL | {"credentials": {"tipe": "x"}}, "azure.credentials has no parameter tipe"),
        (MINIMAL | {"credentials": {"type": "shared_key"}}, "accountkey is missing"),
        (WITH_KEY | {"adopt": "slash"}, "adopt should be one of auto, leadingslash, none"),
        (WITH_KEY | {"adopt": "leadingslash", "rootdirectory": "x"}, "which knows no rootdirectory"),
        (WITH_KEY | {"chunksize": "1000"}, "chunksize should be a whole number of bytes from 1048576"),
        (WITH_KEY | {"retry_delay": "soon"}, "retry_delay should be a duration"),
        (WITH_KEY | {"acountname": "x"}, "did you mean accountname"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, object], sentence: str) -> None:
    """One sentence, with the parameter's name; never a value."""
    with pytest.raises(ParameterError, match=sentence) as refused:
        parameters(given)
    assert "TOPSECRET" not in str(refused.value)


def test_no_secret_is_shown() -> None:
    """Not in the representation that ends up in logs."""
    secret = {"type": "client_secret", "clientid": "ID", "tenantid": "TENANT", "secret": "TOPSECRET"}
    for given in (WITH_KEY, MINIMAL | {"sastoken": SAS}, MINIMAL | {"credentials": secret}):
        found = parameters(given)
        for text in (repr(found), repr(found.identity)):
            assert not {"TOPSECRET", KEY, "ID", "TENANT"} & set(text.replace("=", " ").split())
            assert "SECRET" not in text
            assert KEY not in text
