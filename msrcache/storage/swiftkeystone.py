"""Keystone, version 2 and 3: the only module that knows OpenStack's identity library, which blocks and gets a thread.

Password, trust and application credential. What a parameter means is as in Docker Registry 2.8: `domain` is the
user's, and the project's too where no `tenantdomain` is given; with neither it is the one called Default.
Not here: when a token is asked for (`swiftidentity`).
"""

import asyncio
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from keystoneauth1 import exceptions
from keystoneauth1.identity import generic, v2, v3
from keystoneauth1.session import Session

from msrcache.storage.errors import StorageError, Unusable
from msrcache.storage.swifterrors import NAME, Answered
from msrcache.storage.swiftidentity import Grant, refused_by, secret_of, unreachable
from msrcache.storage.swiftparameters import SwiftParameters
from msrcache.storage.threads import Threads

TIMEOUT: Final = 10.0
"""Seconds for one answer of Keystone."""

DEFAULT_DOMAIN: Final = "Default"


class Keystone:
    """Asks for tokens, one after the other."""

    def __init__(self, given: SwiftParameters) -> None:
        self._given = given
        self._threads = Threads("swift-keystone", 2)

    def __repr__(self) -> str:
        return f"<Keystone at {self._given.authurl}>"

    async def __call__(self) -> Grant:
        """A token, and where the account is. Raises StorageError."""
        secret = await secret_of(self._given)
        try:
            return await asyncio.wrap_future(self._threads.submit(partial(_asked, self._given, secret)))
        except exceptions.ClientException as error:
            raise _failed(self._given, error) from None  # its text may quote what was sent
        except OSError as error:
            text = f"the authorities in {self._given.trusted} cannot be read"
            raise Unusable(NAME, "", Answered(type(error).__name__), text) from None

    def close(self) -> None:
        """Waits for nobody; idempotent."""
        self._threads.end()


def _asked(given: SwiftParameters, secret: str) -> Grant:
    """Blocks."""
    verify = False if given.insecureskipverify else given.trusted or True
    session = Session(verify=verify, timeout=TIMEOUT, user_agent=given.useragent)
    session.session.auth = _as_it_is
    access = _plugin(given, secret).get_access(session)
    region = given.region or None
    url = access.service_catalog.url_for("object-store", interface=given.endpointtype, region_name=region)
    if not url or not urlsplit(url).netloc:
        raise exceptions.EndpointNotFound
    life = None
    if access.expires is not None and access.issued is not None:
        life = (access.expires - access.issued).total_seconds()
    return Grant(str(access.auth_token), url.rstrip("/"), life)


def _plugin(given: SwiftParameters, secret: str) -> Any:
    user: dict[str, Any] = _domain("user_domain", given.domain, given.domainid)
    if given.applicationcredential:
        return v3.ApplicationCredential(
            given.authurl,
            application_credential_secret=secret,
            application_credential_id=given.applicationcredentialid or None,
            application_credential_name=given.applicationcredentialname or None,
            username=given.username or None,
            **(user if given.username else {}),
        )
    who: dict[str, Any] = {"username": given.username, "password": secret}
    if given.version == 3:
        return v3.Password(given.authurl, **who, **user, **_scope(given))
    project: dict[str, Any] = {"tenant_name": given.tenant or None, "tenant_id": given.tenantid or None}
    trust = given.trustid or None
    if given.version == 2:
        return v2.Password(given.authurl, **who, **project, trust_id=trust)
    if given.domain or given.domainid:
        return generic.Password(given.authurl, **who, **user, **_scope(given))
    # Keystone is asked which version it speaks: domains are for the third only.
    if given.tenantdomain or given.tenantdomainid:
        project |= _domain("project_domain", given.tenantdomain, given.tenantdomainid)
    return generic.Password(
        given.authurl,
        **who,
        **project,
        trust_id=trust,
        default_domain_name=DEFAULT_DOMAIN,
    )


def _scope(given: SwiftParameters) -> dict[str, Any]:
    """What the token is for."""
    if given.trustid:
        return {"trust_id": given.trustid}
    if given.tenantid:
        return {"project_id": given.tenantid}
    if not given.tenant:
        return {}
    name, by_id = given.tenantdomain, given.tenantdomainid
    if not name and not by_id:
        name, by_id = given.domain, given.domainid
    return {"project_name": given.tenant, **_domain("project_domain", name, by_id)}


def _domain(which: str, name: str, by_id: str) -> dict[str, Any]:
    if name:
        return {f"{which}_name": name}
    return {f"{which}_id": by_id} if by_id else {f"{which}_name": DEFAULT_DOMAIN}


def _failed(given: SwiftParameters, error: exceptions.ClientException) -> StorageError:
    if isinstance(error, exceptions.SSLError):
        text = f"the certificate of {given.authurl} is not trusted: give its CA as storage.swift.ca"
        return Unusable(NAME, "", None, text)
    if isinstance(error, exceptions.ConnectionError):
        return unreachable(given, Answered(type(error).__name__))
    if isinstance(error, exceptions.CatalogException):
        region = f" in region {given.region}" if given.region else ""
        text = (
            f"Keystone's catalogue has no {given.endpointtype} object-store{region} for this user: correct region or"
            " endpointtype, or name the project (tenant)"
        )
        return Unusable(NAME, "", None, text)
    if isinstance(error, exceptions.HttpError):
        return refused_by(given, int(getattr(error, "http_status", 0) or 0))
    if isinstance(error, exceptions.DiscoveryFailure):
        return refused_by(given, 404)
    return StorageError(NAME, "", None, f"Keystone could not be asked: {type(error).__name__}")


def _as_it_is(request: Any) -> Any:
    """Instead of what a .netrc says."""
    return request
