"""What an operator may say about an upstream, and what is refused before anything is asked."""

from pathlib import Path

import pytest

from msrcache.upstream.settings import UpstreamSettings, UpstreamSettingsError, proxy_environment


@pytest.mark.parametrize(
    "values",
    [
        {"url": "msr.example.com"},
        {"url": "ftp://msr.example.com"},
        {"url": "https://"},
        {"url": "https://me:secret@msr.example.com"},
        {"url": "https://msr.example.com?x=secret"},
        {"url": "https://msr.example.com", "username": "a:b"},
        {"url": "https://msr.example.com", "certificate": Path("c.pem")},
        {"url": "https://msr.example.com", "key": Path("k.pem")},
    ],
)
def test_what_cannot_be_meant(values: dict[str, object]) -> None:
    """One sentence, and no secret in it."""
    with pytest.raises(UpstreamSettingsError) as caught:
        UpstreamSettings(**values)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_the_name_is_the_host() -> None:
    """With the port where one is written, and no password in sight."""
    settings = UpstreamSettings(url="https://msr.example.com:4443/x", username="a", password="secret")
    assert settings.name == "msr.example.com:4443"
    assert "secret" not in repr(settings)


def test_the_environment_is_asked_for_proxies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upper and lower case; REQUEST_METHOD in capitals only, as CGI sets it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://p")
    monkeypatch.setenv("no_proxy", "a")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxy_environment() == {"HTTPS_PROXY": "http://p", "no_proxy": "a", "REQUEST_METHOD": "GET"}
