"""What answers in the Hub's place: the page of a network that asks for a login, and JSON that is not the Hub's."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants, errors

from lmsat_plugin import hub
from lmsat_plugin.errors import LmsatError

ANSWERS = {
    "login page": ("text/html", b"<html><title>Welcome</title><form>Room number</form></html>"),
    "empty": ("application/json", b""),
    "a list": ("application/json", b"[1, 2]"),
    "text": ("application/json", b'"no"'),
    "other keys": ("application/json", b'{"branches": [{"Name": 1}]}'),
    "nested": ("application/json", b"[" * 100_000),
}


@pytest.fixture
def stand_in(monkeypatch):
    """Return a function that makes a server of this machine answer for the Hub, always the same."""
    servers = []

    def answer(kind: str, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{servers[-1].server_address[1]}"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(hub, "HfApi", lambda: HfApi(endpoint=endpoint, token=False))

    yield answer
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("kind", "body"), ANSWERS.values(), ids=ANSWERS)
def test_who_is_not_the_hub_is_a_sentence(stand_in, kind, body):
    stand_in(kind, body)
    with pytest.raises(LmsatError, match=r"what answers at http://127.0.0.1:\d+ for org/name is not the Hub"):
        hub.list_refs("org/name")
    if kind == "text/html":
        with pytest.raises(LmsatError, match="is not the Hub"):
            hub.list_files("org/name", "0" * 40)


@pytest.mark.parametrize(
    ("refusal", "without", "with_token"),
    [
        (
            "GatedRepoError",
            "org/m is gated: accept the terms at https://huggingface.co/org/m, then `hf auth login`",
            "org/m is gated, and the token in HF_TOKEN has no access: accept the terms at https://huggingface.co/org/m "
            "with the account of the token",
        ),
        (
            "RepositoryNotFoundError",
            "the Hub has no org/m, or it is private: correct the name, or `hf auth login`",
            "the Hub has no org/m, or it is private and the token in HF_TOKEN may not read it: correct the name, or "
            "use a token that may",
        ),
        (
            "HfHubHTTPError",
            "the Hub refuses org/m (HTTP 401): `hf auth login` with a token that may read it",
            "the Hub refuses org/m (HTTP 401): the token in HF_TOKEN is not valid or has no right to read it: use one "
            "that has",
        ),
    ],
)
def test_a_refusal_says_what_to_do_about_the_token(monkeypatch, refusal, without, with_token):
    kind = getattr(errors, refusal)
    error = kind.__new__(kind)
    error.response = SimpleNamespace(status_code=401, headers={})
    monkeypatch.setattr(hub, "get_token", lambda: None)
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")

    def sentence() -> str:
        with pytest.raises(LmsatError) as raised, hub.hub_errors("org/m"):
            raise error
        return str(raised.value)

    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert sentence() == without
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert sentence() == with_token
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
    if refusal != "GatedRepoError":
        assert sentence() == f"{with_token} (HF_ENDPOINT=https://mirror.example)"
