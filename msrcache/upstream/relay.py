"""What is not cached: pulls as paths of the upstream, and its answers with what may be passed on of them. Pure."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from msrcache.oci.errors import UpstreamBroken
from msrcache.oci.pulls import Catalog, Ping, Referrers, Relayed, Rest, TagsList
from msrcache.oci.registry import Answer
from msrcache.upstream.answers import Whole, media_type

RELAY_LIMIT: Final = 32 << 20
_PASSED: Final = ("Content-Type", "OCI-Filters-Applied", "Docker-Distribution-Api-Version")


def relay_path(pull: Relayed) -> str:
    """Path and query, encoded."""
    match pull:
        case Ping():
            return "/v2/"
        case TagsList():
            return f"/v2/{pull.repository}/tags/list" + _query({"n": pull.n, "last": pull.last}, pull.rest)
        case Referrers():
            return f"/v2/{pull.repository}/referrers/{pull.digest}" + _query(
                {"artifactType": pull.artifact_type}, pull.rest
            )
        case Catalog():
            return "/v2/_catalog" + _query({"n": pull.n, "last": pull.last}, pull.rest)


def passed_on(answer: Whole, *, prefix: str, host: str) -> Answer:
    """The answer, with the headers that are safe and useful; a Link leads to ourselves. UpstreamBroken for HTML."""
    if media_type(answer.headers) in {"text/html", "application/xhtml+xml"}:
        raise UpstreamBroken(f"the upstream {host} sent a web page (HTML); is that a registry's address?")
    headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
    link = local_link(answer.headers.get("Link", ""), prefix=prefix)
    return Answer(answer.status, headers | ({"Link": link} if link else {}), answer.body)


def local_link(text: str, *, prefix: str) -> str:
    """A Link header with its target below our own /v2/; "" where it leads elsewhere or can't be read."""
    target, closing, parameters = text.strip().removeprefix("<").partition(">")
    try:
        parts = urlsplit(target)
    except ValueError:
        return ""
    path = parts.path.removeprefix(prefix)
    if not closing or not text.strip().startswith("<") or not path.startswith("/v2/"):
        return ""
    return f"<{path}{'?' + parts.query if parts.query else ''}>{parameters}"


def _query(values: Mapping[str, int | str | None], rest: Rest) -> str:
    known = [(name, value) for name, value in values.items() if value is not None]
    pairs = [f"{quote(name, safe='')}={quote(str(value), safe='')}" for name, value in (*known, *rest)]
    return "?" + "&".join(pairs) if pairs else ""
