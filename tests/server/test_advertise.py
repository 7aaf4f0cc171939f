"""The address that others are told."""

import socket

import pytest

from msrcache.server import advertise
from msrcache.server.advertise import advertised, own_address


async def test_what_the_operator_says_is_told() -> None:
    """As it is written."""
    assert await advertised("0.0.0.0:5005", given="cache-1.example.com:15005") == "cache-1.example.com:15005"


@pytest.mark.parametrize("addr", ["10.0.0.7:0", "cache-1.example.com:0", "[fd00::7]:0"])
async def test_a_certain_host_is_told_with_the_port_that_was_bound(addr: str) -> None:
    """The host as written, since its address may change."""
    assert await advertised("10.0.0.7:40001", addr=addr) == f"{addr[:-2]}:40001"


@pytest.mark.parametrize("addr", [":5005", "0.0.0.0:5005", "[::]:5005"])
async def test_anywhere_is_found(addr: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of this machine, with the port."""
    monkeypatch.setattr(advertise, "own_address", lambda: "10.1.2.3")
    assert await advertised("[::]:5005", addr=addr) == "10.1.2.3:5005"


def test_this_machine_has_an_address() -> None:
    """One that a socket here can be bound to."""
    host = own_address()
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((host.strip("[]"), 0))


def test_without_a_route_the_name_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where that stands for nothing, it is the loopback: replicas of one machine reach each other."""
    monkeypatch.setattr(advertise, "OUTSIDE", ((socket.AF_INET, "no address"),))
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fd00::7", 0, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert own_address() == "[fd00::7]"

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert own_address() == "127.0.0.1"
