"""The samples of load balancers: what each one is, what of it a test may change, and how its program is started.

Only addresses, the public name and the paths of certificates are changed. What the replicas' configuration needs is
taken from the sample's own comment, so that what an operator copies is what is tested.
Not here: the replicas (`replica`).
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.stage.certificates import KeyPair
from tests.stage.process import Process, answers, running
from tests.stage.tools import PROJECT, need

FOLDER = PROJECT / "config/load-balancers"
NAME = "cache.example.com"
BALANCER = "10.0.0.2"
REPLICAS = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
ANNOUNCED = "# The replicas' config.yml needs, beside store and upstream:\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """One file. `passthrough`: it reads no request; `watches`: it asks for readiness."""

    file: str
    program: str
    listens: str
    """The words of the address that it listens on."""
    tls: bool = True
    passthrough: bool = False
    watches: bool = True

    @property
    def scheme(self) -> str:
        """How clients speak to it."""
        return "https" if self.tls else "http"

    @property
    def text(self) -> str:
        """As an operator copies it."""
        return (FOLDER / self.file).read_text()

    def replicas_part(self) -> dict[str, dict[str, object]]:
        """What its comment says the replicas need."""
        _, _, rest = self.text.partition(ANNOUNCED)
        lines = rest.partition("#\n")[0].splitlines()
        part: dict[str, dict[str, object]] = yaml.safe_load(
            "\n".join(line.removeprefix("# ") for line in lines)
        )
        return part


SAMPLES = (
    Sample("haproxy-tcp.cfg", "haproxy", "bind :5000", tls=False, passthrough=True),
    Sample("haproxy-tls-passthrough.cfg", "haproxy", "bind :443", passthrough=True),
    Sample("haproxy-http.cfg", "haproxy", "bind :5000", tls=False),
    Sample("haproxy-tls-termination.cfg", "haproxy", "bind :443 "),
    Sample("nginx.conf", "nginx", "listen 443 ", watches=False),
    Sample("Caddyfile", "caddy", f"https://{NAME}:443 {{\n\tbind 0.0.0.0\n"),
    Sample("envoy.yaml", "envoy", "{address: 0.0.0.0, port_value: 443}"),
)


def changed(text: str, changes: Mapping[str, str]) -> str:
    """The text with other addresses. Each one must be there: a test of another file than ours proves nothing."""
    for old, new in changes.items():
        assert old in text, f"{old!r} does not stand in the sample"
        text = text.replace(old, new)
    return text


def _listening(sample: Sample, port: int) -> str:
    return {
        "haproxy": sample.listens.replace(":", "127.0.0.1:")
        .replace("5000", str(port))
        .replace("443", str(port)),
        "nginx": f"listen 127.0.0.1:{port} ",
        "caddy": f"https://localhost:{port} {{\n\tbind 127.0.0.1\n",
        "envoy": f"{{address: 127.0.0.1, port_value: {port}}}",
    }[sample.program]


def _backends(sample: Sample, ports: tuple[int, ...]) -> dict[str, str]:
    form = "{}, port_value: {}" if sample.program == "envoy" else "{}:{}"
    return {form.format(a, 5000): form.format("127.0.0.1", p) for a, p in zip(REPLICAS, ports, strict=True)}


def _secrets(sample: Sample, folder: Path, pair: KeyPair, bundle: Path) -> dict[str, str]:
    """The paths of certificates; HAProxy wants certificate and key in one file."""
    both = folder / "both.pem"
    both.write_text(pair.certificate.read_text() + pair.key.read_text())
    if sample.program == "haproxy" and sample.passthrough:
        # The check looks at this name; the certificate of a test is localhost's.
        return {"/etc/haproxy/cache-ca.pem": str(bundle), NAME: "localhost"}
    if sample.program == "haproxy":
        return {"/etc/haproxy/cache.pem": str(both)}
    place = f"/etc/{sample.program}/cache"
    return {f"{place}.pem": str(pair.certificate), f"{place}-key.pem": str(pair.key)}


def _argv(sample: Sample, path: Path) -> list[str | Path]:
    program = need(sample.program)
    starts: dict[str, list[str | Path]] = {
        "haproxy": [program, "-db", "-f", path],
        "nginx": [program, "-e", "stderr", "-c", path, "-g", "daemon off;"],
        "caddy": [program, "run", "--adapter", "caddyfile", "--config", path],
        "envoy": [program, "--use-dynamic-base-id", "--concurrency", "2", "-l", "warning", "-c", path],
    }
    return starts[sample.program]


@contextlib.asynccontextmanager
async def balancer(
    sample: Sample, folder: Path, port: int, ports: tuple[int, ...], pair: KeyPair, bundle: Path
) -> AsyncIterator[Process]:
    """The sample's program on a loopback port, before replicas on these; yields when a replica answers through it."""
    changes = {sample.listens: _listening(sample, port), **_backends(sample, ports)}
    if sample.tls:
        changes |= _secrets(sample, folder, pair, bundle)
    if sample.program == "nginx":
        changes |= {"pid /run/nginx.pid": f"pid {folder}/nginx.pid"}
    path = folder / sample.file
    path.write_text(changed(sample.text, changes))
    env = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    url = f"{sample.scheme}://localhost:{port}/readyz"

    async def ready() -> bool:
        return await answers(url, below=400)

    async with running(sample.program, _argv(sample, path), ready=ready, log=folder / "log", env=env) as one:
        yield one
