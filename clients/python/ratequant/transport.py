"""How a client encrypts its calls and shows who it is."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import grpc

_LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")


def _flag(name: str) -> bool:
    value = os.environ.get(name, "").lower()
    if value not in ("", "0", "1", "false", "true"):
        raise ValueError(f"{name} is '{value}'; use true or false")
    return value in ("1", "true")


@dataclasses.dataclass(frozen=True)
class Transport:
    """TLS files (PEM) and bearer token of a client. Certificates and token are
    read again when their files change: calls that run go on.

    Attributes:
      tls: encrypt; implied by any of the files.
      tls_ca: the CA certificates that servers must come from; empty means the
        system's.
      tls_cert, tls_key: the client's own certificate chain and key; or empty.
      token_file: holds a bearer token; or empty.
      insecure: allows plaintext to another machine.
    """

    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    token_file: str = ""
    insecure: bool = False

    @classmethod
    def from_environment(cls, **given: Any) -> Transport:
        """What is given, and for what is None the environment: RATEQUANT_TLS,
        _TLS_CA, _TLS_CERT, _TLS_KEY, _TOKEN_FILE and _INSECURE."""
        values = {}
        for field in dataclasses.fields(cls):
            variable = f"RATEQUANT_{field.name.upper()}"
            value = given.get(field.name)
            if value is None:
                value = _flag(variable) if field.type == "bool" else os.environ.get(variable, "")
            values[field.name] = value if field.type == "bool" else os.fspath(value)
        return cls(**values)

    @property
    def encrypted(self) -> bool:
        return self.tls or any(self._files)

    @property
    def _files(self) -> tuple[str, str, str]:
        return self.tls_ca, self.tls_key, self.tls_cert

    def version(self) -> tuple[Any, ...]:
        """Another value once a TLS file is another."""
        stats = [os.stat(path) for path in self._files if path]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def credentials(self, endpoint: str) -> grpc.ChannelCredentials | None:
        """Credentials from the files as they are now, None for plaintext.

        Raises:
          ValueError: plaintext to another machine without `insecure`, or a
            certificate without its key.
          OSError: a file can't be read.
        """
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("a client certificate and its key go together; give both tls_cert and tls_key")
        if not self.encrypted:
            if self.insecure or endpoint.startswith(_LOOPBACK):
                return None
            raise ValueError(
                f"refusing to call {endpoint} in plaintext: it isn't on this machine; use TLS (tls_ca, or tls=True "
                "for the system's CA certificates), or allow it (insecure=True)"
            )
        return grpc.ssl_channel_credentials(
            *(pathlib.Path(path).read_bytes() if path else None for path in self._files)
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries: the token as it is now."""
        if not self.token_file:
            return ()
        words = pathlib.Path(self.token_file).read_text().split()
        if not words:
            raise ValueError(f"there is no token in {self.token_file}")
        return (("authorization", f"Bearer {words[0]}"),)


class TransportChannel:
    """A channel for generated stubs over one gRPC channel after another: a call
    made after the TLS files have changed goes over a new one. Thread-safe."""

    def __init__(self, transport: Transport, endpoint: str, open_channel: Callable[[Any], Any]):
        """`open_channel` makes a gRPC channel from credentials, or None."""
        self._transport, self._endpoint, self._open = transport, endpoint, open_channel
        self._lock = threading.Lock()
        self._version = transport.version()
        self._channel = open_channel(transport.credentials(endpoint))
        self.unary_unary = self._factory("unary_unary")
        self.unary_stream = self._factory("unary_stream")
        self.stream_unary = self._factory("stream_unary")
        self.stream_stream = self._factory("stream_stream")

    def _current(self) -> Any:
        version = self._transport.version()
        with self._lock:
            if version != self._version:
                self._channel = self._open(self._transport.credentials(self._endpoint))
                self._version = version
            return self._channel

    def _factory(self, kind: str) -> Callable[..., Callable[..., Any]]:
        def make(*arguments: Any, **options: Any) -> Callable[..., Any]:
            made: dict[Any, Any] = {}

            def call(request: Any, timeout: float | None = None) -> Any:
                channel = self._current()
                method = made.get(channel)
                if method is None:
                    method = getattr(channel, kind)(*arguments, **options)
                    made.clear()
                    made[channel] = method
                return method(request, timeout=timeout, metadata=self._transport.metadata())

            return call

        return make
