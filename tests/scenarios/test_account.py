"""A service account in mode upstream: the caller is asked about, the account fetches, also after the caller's end."""

import base64
from pathlib import Path

from msrcache.assembly import Application
from msrcache.config.load import parse
from tests.scenarios.plays import configuration, pull, settled
from tests.stage.images import noise
from tests.stage.scripted import Request, Scripted, Turn, scripted

DATA = noise(200_000, 51)
K = 80_000
SERVICE = "Basic " + base64.b64encode(b"service:pw").decode()
ALICE = {"Authorization": "Bearer alice"}


def application(folder: Path, upstream: Scripted, access: str = "mode: upstream") -> Application:
    """A cache whose upstream has an account."""
    text = configuration(folder, upstream.url, mode="upstream").replace("mode: upstream", access)
    entry = f"- {{url: '{upstream.url}', username: service, password: pw}}"
    return Application(parse(text.replace(f"- url: {upstream.url}", entry), "config.yml", {}).config)


class Doorman:
    """Lets the account and Alice in, until Alice's token has ended."""

    def __init__(self) -> None:
        self.ended = False

    def __call__(self, request: Request) -> Turn | None:
        if request.authorization == SERVICE or (request.authorization == "Bearer alice" and not self.ended):
            return None
        return Turn(status=401, body=b"{}", headers=(("WWW-Authenticate", 'Basic realm="r"'),))


def asked(upstream: Scripted) -> list[str]:
    """Method, range and who of each request."""
    names = {SERVICE: "service", "Bearer alice": "alice", "": "nobody"}
    return [
        " ".join(filter(None, (one.method, one.headers.get("range", ""), names[one.authorization])))
        for one in upstream.ledger
    ]


async def test_the_caller_is_asked_about_and_the_account_fetches(tmp_path: Path) -> None:
    """One HEAD as Alice, the bytes as the account, which logs in once; a second blob within a minute without a HEAD."""
    async with scripted() as upstream, application(tmp_path, upstream).running() as running:
        upstream.guard = Doorman()
        one, two = upstream.publish_blob(DATA), upstream.publish_blob(DATA[::-1])
        assert (await pull(running, one, **ALICE)).body == DATA
        assert (await pull(running, two, **ALICE)).body == DATA[::-1]
        assert asked(upstream) == ["HEAD alice", "GET nobody", "GET service", "GET service"]
        assert (await pull(running, one, Authorization="Bearer bob")).status == 401


async def test_a_callers_token_that_ends_is_no_end_of_the_fill(tmp_path: Path) -> None:
    """The upstream breaks at byte k when Alice's token has ended: the account goes on, and she gets every byte."""
    async with scripted() as upstream, application(tmp_path, upstream).running() as running:
        doorman = Doorman()
        path = upstream.publish_blob(DATA)
        upstream.script(
            path, Turn(status=401, headers=(("WWW-Authenticate", 'Basic realm="r"'),)), Turn(cut=K)
        )

        def guard(request: Request) -> Turn | None:
            doorman.ended = request.method == "GET"  # from the first byte that is fetched for her
            return doorman(request) if request.method == "HEAD" or request.authorization else None

        upstream.guard = guard
        got = await pull(running, path, **ALICE)
        await settled(running)
        assert (got.body, got.whole) == (DATA, True)
        assert asked(upstream) == ["HEAD alice", "GET nobody", "GET service", f"GET bytes={K}- service"]


async def test_the_account_can_be_left_out(tmp_path: Path) -> None:
    """fetch: caller: the caller's own credential fetches, although there is an account."""
    async with scripted() as upstream:
        upstream.guard = Doorman()
        path = upstream.publish_blob(DATA)
        async with application(tmp_path, upstream, "mode: upstream, fetch: caller").running() as running:
            assert (await pull(running, path, **ALICE)).body == DATA
        assert asked(upstream) == ["GET alice"]
