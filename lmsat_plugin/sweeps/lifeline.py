"""Notice that a process of a launch is gone, has raised an error alone, or keeps the others waiting."""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import torch.distributed

from lmsat_plugin.outside_text import show

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long the others have to come to the same end, or the main thread to notice, before a launch is ended."""
WAITING_SECONDS = 60.0
"""How long a process may be silent, or behind the others, before it is named as the one that is waited for."""
_BEAT_SECONDS = 5.0
_STOPPED_SECONDS = 3.0
_CONNECT_SECONDS = 20.0
_ACCEPT_SECONDS = 5.0
_BYE = "bye"
_AT_WORK, _WAITS = "at work", "waits"
_COLLECTIVES = os.path.dirname(torch.distributed.__file__)  # noqa: PTH120 - as in the names of code
# A machine that is gone, or cut off, is noticed after 10 + 4 * 5 seconds.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}


class Lifeline:
    """A connection between the first process of a launch and each of the others, watched by a thread.

    The system closes it when a process dies, at whatever its main thread and the others' wait. Where a launch cannot go
    on, the thread says why and ends the process: a collective cannot be interrupted. A process that is stopped, or
    hangs, says nothing any more or does not come to where the others wait: it is named, and may go on.

    Args:
        rank: Of this process.
        size: Of the launch.
        group: A group of processes over which the first tells where it listens.
    """

    def __init__(self, rank: int, size: int, group: Any) -> None:
        self._rank, self._selector = rank, selectors.DefaultSelector()
        self._peers: dict[int, socket.socket] = {}
        self._buffers: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self.lost: int | None = None
        """The process that is gone without having said so."""
        self.interrupted = False
        """Whether one has left because it was told to."""
        self._call = 0
        self._deadline: tuple[float, str] | None = None
        self._closed = False
        self._heard: dict[int, float] = {}
        """When each of the others was heard last."""
        self._waiting: dict[int, float] = {}
        """The processes that wait in a collective, and since when."""
        self._named: set[int] = set()
        """The processes that were named as silent, or behind."""
        self._connect(size, group)
        if missing := (set(range(1, size)) if rank == 0 else {0}) - self._peers.keys():
            logger.warning("no connection to process %s: if it dies, this one may wait for it", min(missing))
        for peer, connection in self._peers.items():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            self._selector.register(connection, selectors.EVENT_READ, peer)
        if rank:
            self._say_bye_when_interrupted()
        threading.Thread(target=self._watch, daemon=True, name="lmsat-lifeline").start()

    def _connect(self, size: int, group: Any) -> None:
        """Connect the first process to each of the others, as slow as one may be, and agree on who is connected."""
        if self._rank == 0:
            with _listen(size) as server:
                key = secrets.token_hex(16)
                torch.distributed.broadcast_object_list([(server.getsockname()[1], key)], src=0, group=group)
                # Whoever has come through here has connected, or cannot.
                torch.distributed.barrier(group=group)
                server.settimeout(_ACCEPT_SECONDS)
                with suppress(TimeoutError):
                    while len(self._peers) < size - 1:
                        connection, _ = server.accept()
                        connection.settimeout(_ACCEPT_SECONDS)
                        with suppress(OSError, ValueError):
                            said, rank = connection.recv(100).decode("ascii", "replace").split()
                            if secrets.compare_digest(said, key):
                                self._peers[int(rank)] = connection
            torch.distributed.broadcast_object_list([list(self._peers)], src=0, group=group)
            return
        place: list[Any] = [None]
        torch.distributed.broadcast_object_list(place, src=0, group=group)
        port, key = place[0]
        with suppress(OSError):
            address = os.environ.get("MASTER_ADDR", "localhost"), port
            connection = socket.create_connection(address, timeout=_CONNECT_SECONDS)
            connection.sendall(f"{key} {self._rank}".encode())
            self._peers[0] = connection
        torch.distributed.barrier(group=group)
        connected: list[Any] = [None]
        torch.distributed.broadcast_object_list(connected, src=0, group=group)
        if self._rank not in connected[0]:
            # What the first has not accepted it closes, which is no sign that it is gone.
            self._peers.clear()

    def _say_bye_when_interrupted(self) -> None:
        """Let the first process tell an interrupt from a death. Nothing here is written that would be cut off."""
        if threading.current_thread() is not threading.main_thread():
            return
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        # Python's own handlers wait until a collective has ended; the byte is written at once.
        signal.set_wakeup_fd(writer.fileno())
        self._writer = writer
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        self._selector.register(reader, selectors.EVENT_READ, None)

    def begin(self) -> int:
        """Note that all processes make another call; return its number."""
        self._call += 1
        return self._call

    def raised(self, call: int, sentence: str) -> None:
        """Tell the first process that a call raised here. Unless all come back from it soon, the launch ends."""
        if self._rank == 0:
            self._expect(call, self._rank, sentence)
        else:
            self._send(0, [call, sentence])

    def returned(self) -> None:
        """Note that all have come back from the call."""
        with self._lock:
            self._call += 1
            if self.lost is None:
                self._deadline = None

    def stand_down(self) -> None:
        """End nothing any more: the main thread has noticed."""
        self._closed = True

    def close(self) -> None:
        """Say that this process leaves as it should."""
        self.stand_down()
        for peer in self._peers:
            self._send(peer, _BYE)

    def _send(self, peer: int, said: Any) -> None:
        if peer in self._peers:
            # What a stopped process does not read must not keep this one waiting.
            with suppress(OSError):
                self._peers[peer].send(f"{json.dumps(said)}\n".encode(), getattr(socket, "MSG_DONTWAIT", 0))

    def _expect(self, call: int, rank: int, sentence: str) -> None:
        with self._lock:
            # Another process may be ahead of this one, and what it says late is of a call that is over.
            if call >= self._call and self._deadline is None:
                what = f"process {rank} of the launch failed, and the others wait for it ({sentence})"
                self._deadline = time.monotonic() + GRACE_SECONDS, f"{what}: start the sweep again"

    def _watch(self) -> None:
        begun = beat = time.monotonic()
        self._heard = dict.fromkeys(self._peers, begun)
        while not self._closed:
            now = time.monotonic()
            if now - begun > _STOPPED_SECONDS:
                # This process was stopped itself.
                self._heard = dict.fromkeys(self._peers, now)
            begun = now
            if now >= beat:
                beat = now + _BEAT_SECONDS
                waits = _waits()
                self._note_state(self._rank, waits)
                for peer in self._peers:
                    self._send(peer, _WAITS if waits else _AT_WORK)
                self._name_who_is_waited_for(now)
            for key, _ in self._selector.select(timeout=0.2):
                connection: Any = key.fileobj
                if key.data is None:
                    number = connection.recv(1)[0]
                    self.close()
                    os._exit(128 + number)
                self._read(connection, key.data)
            if self._deadline is not None and time.monotonic() > self._deadline[0] and not self._closed:
                _end(self._deadline[1], silent=self._rank > 0)

    def _read(self, connection: Any, peer: int) -> None:
        try:
            data = connection.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            with self._lock:
                self.lost = peer
                sentence = f"process {peer} of the launch is gone: start the sweep again"
                self._deadline = time.monotonic() + GRACE_SECONDS, sentence
            return
        self._heard[peer] = time.monotonic()
        *lines, self._buffers[peer] = (self._buffers.get(peer, b"") + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if said == _BYE:
                self.interrupted = True
                self._selector.unregister(connection)
                return
            if said in (_AT_WORK, _WAITS):
                self._note_state(peer, said == _WAITS)
            else:
                self._expect(said[0], peer, said[1])

    def _name_who_is_waited_for(self, now: float) -> None:
        """Name each process once that is silent, or works on while all others wait in a collective for it."""
        if self._rank > 1 or self.lost is not None:
            return  # one of the others is enough to tell of the first
        silent = {peer for peer in self._peers if now - self._heard[peer] > WAITING_SECONDS}
        everybody = {0, *self._peers} if self._rank == 0 else {0}
        waiting = {rank for rank in everybody if now - self._waiting.get(rank, now) > WAITING_SECONDS}
        # Between two calls the others wait for the first by right.
        behind = everybody - waiting - silent if waiting and self._call % 2 else set()
        for peer in sorted((silent | behind) - self._named):
            what = "says nothing any more" if peer in silent else "has not come as far as the others"
            _tell(f"waiting for process {peer} of the launch, which {what}: see whether it is stopped or hangs")
        for peer in sorted(self._named - silent - behind):
            _tell(f"process {peer} of the launch goes on")
        self._named = silent | behind

    def _note_state(self, rank: int, waits: bool) -> None:
        if waits:
            self._waiting.setdefault(rank, time.monotonic())
        else:
            self._waiting.pop(rank, None)


def _waits() -> bool:
    """Return whether the main thread is in a collective, where processes wait for each other."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if _COLLECTIVES in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _listen(size: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=size)
    return socket.create_server(("", 0), backlog=size)


def _tell(sentence: str) -> None:
    """Show a sentence to the user, whatever the main thread waits for."""
    show(f"lmsat: {sentence}", sys.stderr)


def _end(sentence: str, *, silent: bool) -> None:
    if not silent:
        show(f"lmsat: error: {sentence}", sys.stderr)
    os._exit(1)
