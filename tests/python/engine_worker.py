"""The worker's side of services/calibration/ENGINE.md, for tests of an engine."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch

# Far above what anything here takes: it ends a test that hangs, it decides none.
TIMEOUT_SECONDS = 120


class EngineRun:
    """A running engine and a segment for it. A context manager: the engine dies with it."""

    def __init__(
        self,
        model: Path,
        text: Path,
        sequences: int,
        length: int,
        launcher: list[str] | None = None,
        **environment: str,
    ) -> None:
        command = [sys.executable, *(launcher or ["-m", "ratequant.capture.engine"])]
        command += ["--model", str(model), "--text", str(text)]
        command += ["--sequences", str(sequences), "--sequence-length", str(length)]
        self.length = length
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=os.environ | environment
        )
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.segment = os.memfd_create("segment")
        self.heartbeats: list[str] = []

    def __enter__(self) -> EngineRun:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        if exception[0] is not None:
            print(self.read_log())
        self.process.stdin.close()
        os.close(self.segment)
        self.log.close()

    def _read(self) -> None:
        for line in self.process.stdout:
            assert len(line) <= 64 * 1024
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def read_log(self) -> str:
        self.log.seek(0)
        return self.log.read().decode()

    def next_message(self) -> dict[str, Any] | None:
        """The next message, heartbeats too; None at the end of the stream."""
        return self._messages.get(timeout=TIMEOUT_SECONDS)

    def receive(self, kind: str) -> dict[str, Any]:
        """The next message that is no heartbeat; it has to be a `kind`."""
        while (message := self.next_message()) is not None and message["type"] == "heartbeat":
            self.heartbeats.append(message["note"])
        assert message is not None and message["type"] == kind, (message, self.read_log())
        return message

    def send(self, kind: str, **fields: Any) -> None:
        self.send_line(json.dumps({"type": kind, **fields}))

    def send_line(self, line: str) -> None:
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def start(self, hello: dict[str, Any], slots: int) -> None:
        """Sends `start` with a segment for `hello`'s geometry."""
        g = hello["geometry"]
        self.dtype = getattr(torch, hello["dtype"])
        self.shape = (g["kv_heads"], self.length, g["head_dim"])
        self.slot_bytes = 4 * g["kv_heads"] * self.length * g["head_dim"] * self.dtype.itemsize
        os.ftruncate(self.segment, slots * self.slot_bytes)
        self.send("start", segment=self.segment_path, slots=slots, slot_bytes=self.slot_bytes)

    @property
    def segment_path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.segment}"

    def read_slot(self, slot: int) -> tuple[torch.Tensor, ...]:
        """K, V and their gradients in `slot`, copied."""
        content = bytearray(os.pread(self.segment, self.slot_bytes, slot * self.slot_bytes))
        return tuple(torch.frombuffer(content, dtype=self.dtype).view(4, *self.shape))

    def wait(self) -> int:
        """The exit status, when the engine has ended by itself."""
        return self.process.wait(timeout=TIMEOUT_SECONDS)

    def failure(self) -> tuple[str, str]:
        """Reason and message of the `error` the engine ends with."""
        error = self.receive("error")
        assert self.next_message() is None, "a message after `error`"
        assert self.wait() == 1
        return error["reason"], error["message"]
