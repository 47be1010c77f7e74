"""A small stand-in for the Hugging Face Hub, as much of it as huggingface_hub and transformers ask for.

`FakeHub({"org/name": {"main": folder}})` serves folders; `python tests/fake_hub.py FOLDER` serves
``FOLDER/<org>/<name>/<revision>`` and prints its port. What it is asked and what it sends is counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK = 1 << 16
# Files of repositories that a model does not need.
JUNK = (
    *("optimizer.pt", "training_args.bin", "flax_model.msgpack", "tf_model.h5", "consolidated.00.pth"),
    *("m.gguf", "consolidated.safetensors", "model.fp16.safetensors", "README.md", "modeling_own.py"),
    *("pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", "original/model.safetensors"),
)
# What the Hub says of a repository that is not there, and of one that is closed.
MISSING = (401, "RepoNotFound", "Repository not found")
GATED = (401, "GatedRepo", "Access to this model is restricted")
FORBIDDEN = (403, "", "Forbidden")
BROKEN = (500, "", "Internal error")
# What a network answers that asks for a login.
PAGE = b"<!DOCTYPE html><html><title>Log in</title><body>Welcome to our hotel.</body></html>"


class FakeHub:
    """Repositories served on a port of this machine, from the moment it is made until `close`."""

    def __init__(self, repositories: dict[str, dict[str, Path]], tags: dict[str, dict[str, Path]] | None = None):
        self.branches = repositories
        self.tags = tags or {}
        self.history: dict[str, list[tuple[str, Path]]] = {}
        """From a repository to the titles and the folders of the commits of main before its last, the oldest first."""
        self.titles: dict[str, str] = {}
        """From a repository to the title of main's last commit."""
        self.page_size = 1000
        """Entries of a listing in one answer."""
        self.flaky = 0.0
        """The share of all requests, drawn at random, that are refused with status 429."""
        self._random = random.Random(0)
        self.refuse: dict[str, tuple[int, str, str]] = {}
        """From a repository to the status, the error's code and its message."""
        self.troubles: list[tuple[str, int, dict[str, str]]] = []
        """Parts of paths with the status and the headers of the next answer there; each is given once."""
        self.cut: dict[str, int] = {}
        """From a file's name to the bytes after which its next transfer breaks off."""
        self.spoil: dict[str, int] = {}
        """From a file's name to the number of its next transfers that have a flipped bit."""
        self.fault: tuple[int, str] | None = None
        """What becomes of one request, counted from `forget` on: a status, or ``reset``, ``half``, ``other``, ``page``,
        ``redirect``, or, of all after it, too, ``away``."""
        self.asked = 0
        """The number of requests so far."""
        self.seconds_per_block = 0.0
        self.block = BLOCK
        self.requests: Counter[str] = Counter()
        """From method and path to the number of requests."""
        self.sent: Counter[str] = Counter()
        """From a file's name to the bytes of its content that were sent."""
        self.closed = False
        self._commits: dict[Path, str] = {}
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @cached_property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Be gone, as when the network is; a request for ``/end`` does so too."""
        self.closed = True
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Start counting anew."""
        self.requests.clear()
        self.sent.clear()
        self.asked = 0

    def commit(self, repository: str, revision: str) -> str:
        """Return the hash of a revision's content, 40 digits as git's."""
        folder = {**self.tags.get(repository, {}), **self.branches.get(repository, {})}[revision]
        if folder not in self._commits:
            digest = hashlib.sha1(f"{repository}\0".encode())
            for name, path in files(folder).items():
                digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
            self._commits[folder] = digest.hexdigest()
        return self._commits[folder]

    def find(self, repository: str, revision: str) -> tuple[str, Path] | None:
        """Return the commit and the folder of a branch, a tag or a commit."""
        folders = {**self.tags.get(repository, {}), **self.branches.get(repository, {})}
        for name, folder in folders.items():
            if revision in (name, self.commit(repository, name)):
                return self.commit(repository, name), folder
        return next(((commit, folder) for commit, _, folder in self.commits(repository) if commit == revision), None)

    def commits(self, repository: str) -> list[tuple[str, str, Path]]:
        """Return hash, title and folder of the commits of main, the newest first."""
        main = self.branches[repository]["main"]
        before = [
            (hashlib.sha1(f"{repository} {number}".encode()).hexdigest(), *each)
            for number, each in enumerate(self.history.get(repository, []))
        ]
        last = (self.commit(repository, "main"), self.titles.get(repository, "Upload model"), main)
        return [last, *reversed(before)]

    def count(self, counter: Counter[str], key: str, by: int = 1) -> None:
        with self._lock:
            counter[key] += by

    def trouble_at(self, path: str) -> tuple[int, dict[str, str]] | None:
        with self._lock:
            for trouble in self.troubles:
                if trouble[0] in path:
                    self.troubles.remove(trouble)
                    return trouble[1:]
        return None

    def is_flaky(self) -> bool:
        with self._lock:
            return self._random.random() < self.flaky

    def meet(self) -> str:
        """Count a request, and return what becomes of it."""
        with self._lock:
            self.asked += 1
            number, what = self.fault or (0, "")
            return what if self.asked == number or (what == "away" and self.asked > number) else ""

    def cut_after(self, name: str) -> int | None:
        with self._lock:
            return self.cut.pop(name, None)


def other(data: bytes) -> bytes:
    """Return other bytes of the same length, which JSON stays with: one digit is another."""
    digits = [place for place, byte in enumerate(data) if byte in b"012345678"]
    place = digits[-1] if digits else 0
    return data[:place] + bytes([data[place] + 1]) + data[place + 1 :]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    fault = ""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        if path == "/end":
            self._json({})
            threading.Thread(target=self.hub.close).start()
            self.hub.closed = True
        if self.hub.closed:
            self.close_connection = True
            return None
        self.hub.count(self.hub.requests, f"{self.command} {path}")
        self.fault = self.hub.meet()
        if self.fault in ("reset", "away"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return None
        if self.fault.isdigit():
            return self._error(int(self.fault), "", "Later")
        if self.fault == "redirect":
            return self._head(302, 0, {"Location": f"{self.hub.url}/login"})
        if self.fault == "page" or path == "/login":
            self._head(200, len(PAGE), {"Content-Type": "text/html", "ETag": '"page"'})
            if self.command == "GET":
                self.wfile.write(PAGE)
            return None
        if self.hub.is_flaky():
            return self._error(429, "", "Too many requests")
        if trouble := self.hub.trouble_at(path):
            return self._error(trouble[0], "", "Later", trouble[1])
        if path == "/api/models":
            asked = parse_qs(urlsplit(self.path).query)
            of, letters = asked["author"][0], asked.get("search", [""])[0].lower()
            found = [name for name in self.hub.branches if name.startswith(f"{of}/") and letters in name.lower()]
            return self._json([{"id": name, "modelId": name} for name in found])
        if match := re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(refs|revision|tree|commits)(?:/([^/]+))?(/.*)?)?", path
        ):
            repository, what, revision, inside = match.groups()
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, revision, inside = match.groups()
            what = "resolve"
        else:
            return self._error(404, "", "Not Found")
        if repository in self.hub.refuse:
            return self._error(*self.hub.refuse[repository])
        if repository not in self.hub.branches:
            return self._error(*MISSING)
        if what == "refs":
            return self._json(self._refs(repository))
        found = self.hub.find(repository, unquote(revision or "main"))
        if found is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit, folder = found
        if what == "commits":
            keys = {"authors": [], "date": "2025-01-01T00:00:00.000Z", "message": ""}
            return self._page([{"id": c, "title": title, **keys} for c, title, _ in self.hub.commits(repository)])
        if what == "resolve":
            return self._file(commit, folder, unquote(inside))
        if what == "tree":
            if inside:
                return self._error(404, "EntryNotFound", f"{inside} does not exist")
            entries = files(folder).items()
            return self._page(
                [
                    {"type": "file", "path": n, "size": p.stat().st_size, "oid": blob(p), **of_tree(p)}
                    for n, p in entries
                ]
            )
        siblings = [
            {"rfilename": name, "size": path.stat().st_size, "blobId": blob(path), "lfs": lfs(path)}
            for name, path in files(folder).items()
        ]
        return self._json({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings})

    def _refs(self, repository: str) -> dict[str, object]:
        def refs(kind: str, names: dict[str, Path]) -> list[dict[str, str]]:
            return [
                {"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": self.hub.commit(repository, n)} for n in names
            ]

        branches = self.hub.branches[repository]
        converted = [{"name": "parquet", "ref": "refs/convert/parquet", "targetCommit": "0" * 40}]
        tags = refs("tags", self.hub.tags.get(repository, {}))
        return {"branches": refs("heads", branches), "tags": tags, "converts": converted}

    def _page(self, entries: list[dict[str, object]]) -> None:
        """Answer with some entries of a list, and the address of the next ones."""
        url = urlsplit(self.path)
        start = int(parse_qs(url.query).get("cursor", ["0"])[0])
        end = start + self.hub.page_size
        link = {"Link": f'<{self.hub.url}{url.path}?cursor={end}&recursive=true>; rel="next"'}
        self._json(entries[start:end], link if end < len(entries) else None)

    def _file(self, commit: str, folder: Path, name: str) -> None:
        path = files(folder).get(name)
        if path is None:
            return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        size, start = path.stat().st_size, 0
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob(path)}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._head(206 if start else 200, size - start, headers)
        if self.command == "HEAD":
            return None
        limit = size // 2 if self.fault == "half" else self.hub.cut_after(name)
        spoilt = self.hub.spoil.get(name, 0) > 0
        self.hub.spoil[name] = self.hub.spoil.get(name, 0) - 1
        end = size if limit is None else min(size, start + limit)
        with path.open("rb") as file, suppress(ConnectionError):
            file.seek(start)
            while file.tell() < end:
                block = file.read(min(self.hub.block, end - file.tell()))
                if spoilt:
                    block, spoilt = bytes([block[0] ^ 1]) + block[1:], False
                if self.fault == "other":
                    block, self.fault = other(block), ""
                self.wfile.write(block)
                self.hub.count(self.hub.sent, name, len(block))
                time.sleep(self.hub.seconds_per_block)
        self.close_connection = end < size
        return None

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._head(200, len(data), {"Content-Type": "application/json", **(headers or {})})
        if self.command == "GET":
            spoilt = {"half": data[: len(data) // 2], "other": other(data)}
            self.wfile.write(spoilt.get(self.fault, data))
            self.close_connection = self.fault == "half"

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code} if code else {}
        self._head(status, 0, {**codes, "X-Error-Message": message, **(headers or {})})

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


def files(folder: Path) -> dict[str, Path]:
    """Return a folder's files by their path in it."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def blob(path: Path) -> str:
    """Return what git calls a file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs(path: Path) -> dict[str, object] | None:
    """Return what the Hub states of a large file; nothing of a small one."""
    if path.suffix not in (".safetensors", ".bin"):
        return None
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"sha256": sha256, "size": path.stat().st_size, "pointerSize": 134}


def of_tree(path: Path) -> dict[str, object]:
    """Return what a listing of a tree states of a large file, under its own names."""
    stated = lfs(path)
    return {"lfs": {**stated, "oid": stated["sha256"]}} if stated else {}


def hub_environment(hub: FakeHub, home: Path) -> dict[str, str]:
    """Return the environment of a process that takes the fake for the Hub, with a cache of its own."""
    dropped = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }


def run_with_hub(
    hub: FakeHub, home: Path, code: str | list[str], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python code, or the arguments of a Python interpreter, in a process that takes the fake for the Hub."""
    argv = ["-c", code] if isinstance(code, str) else code
    return subprocess.run(
        [sys.executable, *argv, *arguments],
        env={**hub_environment(hub, home), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def main() -> None:
    """Serve ``FOLDER/<org>/<name>/<revision>`` until the process is ended."""
    repositories: dict[str, dict[str, Path]] = {}
    for folder in sorted(Path(sys.argv[1]).glob("*/*/*")):
        repositories.setdefault("/".join(folder.parts[-3:-1]), {})[folder.name] = folder
    print(FakeHub(repositories).port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
