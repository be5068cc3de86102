"""The engine's end of the protocol: JSON lines out, JSON lines in, heartbeats between."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from typing import Any

from ratequant.capture.errors import ENGINE_ERROR, CaptureError

# ENGINE.md asks for a sign of life every 5 s; half of it leaves room for a slow machine.
_HEARTBEAT_SECONDS = 2.5


class Channel:
    """Talks to the worker over two file descriptors.

    Three threads may use it: the one that works, the heartbeat's, and the reader's. The
    reader ends the process when the worker closes its end: nobody is left to work for,
    and the thread that works may be minutes away from looking.
    """

    def __init__(self, read_descriptor: int, write_descriptor: int) -> None:
        self._in = os.fdopen(read_descriptor, "r", encoding="utf-8", newline="\n")
        self._out = os.fdopen(write_descriptor, "w", encoding="utf-8", newline="\n")
        self._write_lock = threading.Lock()
        self._last_sent = time.monotonic()
        self._note = "starting"
        self._stopped = threading.Event()
        self._inbox: queue.SimpleQueue[dict[str, Any] | CaptureError] = queue.SimpleQueue()

    def start(self) -> None:
        """Begins to read and to send heartbeats."""
        for target in (self._read_loop, self._heartbeat_loop):
            threading.Thread(target=target, daemon=True).start()

    def note(self, text: str) -> None:
        """Sets what heartbeats say is being done."""
        self._note = text

    def send(self, kind: str, **fields: Any) -> None:
        """Sends one message; returns when it is in the pipe."""
        line = _format(kind, fields)
        with self._write_lock:
            if not self._stopped.is_set():
                self._write(line)

    def send_last(self, kind: str, **fields: Any) -> None:
        """Sends the message after which no other may come, heartbeats included."""
        line = _format(kind, fields)
        with self._write_lock:
            self._stopped.set()
            self._write(line)

    def receive(self, kind: str) -> dict[str, Any]:
        """Waits for the next message, which has to be a `kind`.

        Raises:
          CaptureError: ENGINE_ERROR; the worker sent something else.
        """
        message = self._inbox.get()
        if isinstance(message, CaptureError):
            raise message
        if message.get("type") != kind:
            raise CaptureError(ENGINE_ERROR, f"the worker sent {message}, expected {kind!r}")
        return message

    def _write(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()
        self._last_sent = time.monotonic()

    def _heartbeat_loop(self) -> None:
        while True:
            wait = self._last_sent + _HEARTBEAT_SECONDS - time.monotonic()
            if self._stopped.wait(max(wait, 0.0)):
                return
            if time.monotonic() - self._last_sent < _HEARTBEAT_SECONDS:
                continue
            try:
                self.send("heartbeat", note=self._note)
            except OSError:
                return  # The worker has gone; the reader sees that too.

    def _read_loop(self) -> None:
        try:
            for line in self._in:
                self._inbox.put(_parse(line))
        except (OSError, UnicodeDecodeError) as error:
            self._inbox.put(CaptureError(ENGINE_ERROR, f"can't read from the worker: {error}"))
            return
        if not self._stopped.is_set():
            sys.stderr.flush()
            os._exit(0)


def _format(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **fields}, ensure_ascii=False, allow_nan=False)


def _parse(line: str) -> dict[str, Any] | CaptureError:
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if isinstance(message, dict):
        return message
    return CaptureError(ENGINE_ERROR, f"the worker sent {line.strip()[:200]!r}, not a JSON object")
