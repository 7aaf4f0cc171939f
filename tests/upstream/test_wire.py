"""One exchange: a clean client, with time-outs that never bound a body, through the proxy that the operator names."""

import asyncio
import ssl
from pathlib import Path

import pytest
from yarl import URL

from msrcache.oci.errors import Unavailable, UpstreamBroken, UpstreamUnavailable
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError
from msrcache.upstream.wire import Wire
from tests.stage.certificates import authority
from tests.stage.clock import FakeClock
from tests.upstream.played import Asked, Played, Say, blob_pull, manifest_pull, played, read, upstream

DATA = b"x" * 1000


def server_context(folder: Path, *names: str, client_ca: Path | None = None) -> tuple[ssl.SSLContext, Path]:
    """A TLS server's context and the CA file that its clients need."""
    ca = authority(folder)
    pair = ca.issue("server", *names)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context, ca.bundle


async def test_nothing_is_added_and_nothing_undone() -> None:
    """No cookie kept, no encoding asked for, an encoded body left as it is."""
    say = Say(body=DATA, headers=(("Set-Cookie", "a=b; Path=/"), ("Content-Encoding", "gzip")))
    async with played(lambda _: say) as server, upstream(server) as client:
        for _ in range(2):
            async with client.blob(blob_pull(DATA)) as blob:
                assert await read(blob) == DATA
        headers = server.ledger[1].headers
    assert set(headers) == {"host", "user-agent", "accept-encoding"}
    assert headers["accept-encoding"] == "identity"


async def test_headers_of_a_real_token_fit() -> None:
    """60 KiB in a line are read; more than 64 KiB are no proper HTTP, and are not quoted."""
    for size in (60_000, 70_000):
        say = Say(body=DATA, headers=(("X-Long", "s" * size),))
        async with played(lambda _, say=say: say) as server, upstream(server) as client:  # type: ignore[misc]
            if size < 65_536:
                assert (await client.resolve(blob_pull(DATA))).descriptor.size == 1000
                continue
            with pytest.raises(UpstreamBroken, match="no proper HTTP") as caught:
                await client.resolve(blob_pull(DATA))
            assert "sss" not in str(caught.value)


async def test_no_header_in_time() -> None:
    """An upstream that takes the request and says nothing is an outage after the header time-out."""

    async def silent(_: Asked) -> Say:
        await asyncio.Event().wait()
        return Say()

    async with (
        played(silent) as server,
        upstream(server, connect_timeout=1, header_timeout=0.05) as client,
    ):
        with pytest.raises(UpstreamUnavailable, match=r"gave no answer within 0.05 s"):
            await client.resolve(manifest_pull())


async def test_nobody_listens() -> None:
    """Refused is said at once, with address and reason, and counted without a status."""
    metrics = Metrics()
    async with played(lambda _: Say()) as server:
        pass
    async with upstream(server, metrics=metrics) as client:
        with pytest.raises(UpstreamUnavailable, match=f"{server.host} can't be reached: "):
            await client.resolve(manifest_pull())
    labels = {"upstream": server.host, "method": "HEAD", "status": "000"}
    assert metrics.registry.get_sample_value("msrcache_upstream_requests_total", labels) == 1


async def test_requests_and_bytes_are_counted() -> None:
    """By upstream, method and status."""
    metrics = Metrics()
    async with (
        played(lambda _: Say(body=DATA)) as server,
        upstream(server, metrics=metrics) as client,
        client.blob(blob_pull(DATA)) as blob,
    ):
        await read(blob)
    labels = {"upstream": server.host, "method": "GET", "status": "200"}
    value = metrics.registry.get_sample_value
    assert value("msrcache_upstream_requests_total", labels) == 1
    assert value("msrcache_upstream_bytes_total", {"upstream": server.host}) == 1000


async def test_a_hang_up_before_the_answer() -> None:
    """A connection that ends without an answer is an outage."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        server = Played(lambda _: Say(), port=listener.sockets[0].getsockname()[1])
        async with upstream(server) as client:
            with pytest.raises(UpstreamUnavailable, match="broke the connection"):
                await client.resolve(manifest_pull())


async def test_no_http_at_all() -> None:
    """Another protocol on that port is nonsense with a name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        server = Played(lambda _: Say(), port=listener.sockets[0].getsockname()[1])
        async with upstream(server) as client:
            with pytest.raises(UpstreamBroken, match=f"{server.host} gave an answer that is no proper HTTP"):
                await client.resolve(manifest_pull())


async def test_connections_are_bounded() -> None:
    """Where all are taken a pull waits, and is told what to do when it waited too long."""
    async with (
        played(lambda _: Say(body=DATA, cut=10, hold=asyncio.Event())) as server,
        upstream(server, connections=1, header_timeout=1.0) as client,
        client.blob(blob_pull(DATA)),
    ):
        with pytest.raises(Unavailable, match="all 1 connections") as caught:
            await client.resolve(blob_pull(DATA))
        assert not isinstance(caught.value, UpstreamUnavailable), "not the upstream's fault"
    assert len(server.ledger) == 1


async def test_a_private_ca(tmp_path: Path) -> None:
    """Its file makes the upstream trusted; without it the reason is said, and skipverify is what it says."""
    context, bundle = server_context(tmp_path)
    async with played(lambda _: Say(body=DATA), tls=context) as server:
        for settings in ({"ca": (bundle,)}, {"skipverify": True}):
            async with upstream(server, **settings) as client:
                assert (await client.resolve(blob_pull(DATA))).descriptor.size == 1000
        async with upstream(server) as client:
            with pytest.raises(
                UpstreamUnavailable,
                match=r"certificate that is refused: .*; give the CA that signed it in `ca`",
            ):
                await client.resolve(blob_pull(DATA))


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    """Trusted, but somebody else's."""
    context, bundle = server_context(tmp_path, "other.example")
    async with played(lambda _: Say(), tls=context) as server, upstream(server, ca=(bundle,)) as client:
        with pytest.raises(UpstreamUnavailable, match="certificate that is refused"):
            await client.resolve(blob_pull(DATA))


async def test_a_client_certificate(tmp_path: Path) -> None:
    """An upstream that asks who its clients are is shown ours."""
    clients = authority(tmp_path / "clients", "clients-ca")
    pair = clients.issue("cache")
    context, bundle = server_context(tmp_path / "server", client_ca=clients.bundle)
    async with played(lambda _: Say(body=DATA), tls=context) as server:
        settings = {"ca": (bundle,), "certificate": pair.certificate, "key": pair.key}
        async with upstream(server, **settings) as client:
            assert (await client.resolve(blob_pull(DATA))).descriptor.size == 1000
        async with upstream(server, ca=(bundle,)) as client:
            with pytest.raises(UpstreamUnavailable):
                await client.resolve(blob_pull(DATA))


async def test_a_plain_server_behind_https() -> None:
    """TLS that nobody speaks there is named as such."""
    async with (
        played(lambda _: Say()) as server,
        upstream(server, url=f"https://{server.host}", connect_timeout=1) as client,
    ):
        with pytest.raises(UpstreamUnavailable, match=r"TLS handshake|took no connection"):
            await client.resolve(blob_pull(DATA))


async def test_through_a_proxy() -> None:
    """A plain request goes to the proxy in absolute form, with the proxy's own credential."""
    async with played(lambda _: Say(body=DATA)) as proxy:
        environ = {"HTTP_PROXY": f"http://user:pw@{proxy.host}"}
        async with upstream(proxy, url="http://registry.example:5000", environ=environ) as client:
            assert (await client.resolve(blob_pull(DATA))).descriptor.size == 1000
        (asked,) = proxy.ledger
    assert asked.target.startswith("http://registry.example:5000/v2/")
    assert asked.headers["proxy-authorization"] == "Basic dXNlcjpwdw=="


async def test_a_proxy_that_refuses() -> None:
    """CONNECT for https, with the credential; its refusal is named, and it is no refusal of the upstream."""
    async with played(lambda _: Say(407)) as proxy:
        environ = {"HTTPS_PROXY": f"http://user:pw@{proxy.host}"}
        async with upstream(proxy, url="https://registry.example", environ=environ) as client:
            with pytest.raises(UpstreamUnavailable, match="the proxy says 407") as caught:
                await client.resolve(blob_pull(DATA))
        (asked,) = proxy.ledger
    assert (asked.method, asked.target) == ("CONNECT", "registry.example:443")
    assert asked.headers["proxy-authorization"] == "Basic dXNlcjpwdw=="
    assert "pw" not in str(caught.value)


async def test_a_proxy_that_is_away() -> None:
    """Its name, not the upstream's fault."""
    async with played(lambda _: Say()) as proxy:
        pass
    environ = {"HTTPS_PROXY": f"http://{proxy.host}"}
    async with upstream(proxy, url="https://registry.example", environ=environ) as client:
        with pytest.raises(UpstreamUnavailable, match="behind a proxy that can't be reached"):
            await client.resolve(blob_pull(DATA))


async def test_closing_twice_and_before_use() -> None:
    """Idempotent, and nothing is opened before the first request."""
    wire = Wire(UpstreamSettings(url="http://x.example"), metrics=Metrics(), clock=FakeClock())
    await wire.close()
    await wire.close()


async def test_cgi_refuses_http_proxy_in_words() -> None:
    """The settings' error becomes the pull's."""
    environ = {"HTTP_PROXY": "http://p.example", "REQUEST_METHOD": "GET"}
    wire = Wire(
        UpstreamSettings(url="http://x.example", environ=environ), metrics=Metrics(), clock=FakeClock()
    )
    with pytest.raises(UpstreamUnavailable, match="REQUEST_METHOD"):
        await wire.send("GET", URL("http://x.example/v2/"), {})
    await wire.close()


def test_what_can_never_work_is_said_at_once(tmp_path: Path) -> None:
    """A missing CA is one sentence, before anything is asked."""
    settings = UpstreamSettings(url="https://x.example", ca=(tmp_path / "none.pem",))
    with pytest.raises(UpstreamSettingsError, match="does not exist"):
        Wire(settings, metrics=Metrics(), clock=FakeClock())
