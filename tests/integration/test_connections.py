"""Clients that connect too often, ping too often or say nothing, beside one that works."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import struct

import grpc
import pytest

from ratequant import Client
from ratequant.v1 import allocation_service_pb2, allocation_service_pb2_grpc
from service_process import ServiceProcess, wait_until

PATIENCE = 60
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7
ENHANCE_YOUR_CALM = 11


def _connect(service: ServiceProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)


def _is_served(connection: socket.socket) -> bool:
    """Whether the server keeps it, which it says first: with its settings."""
    try:
        return connection.recv(1) != b""
    except ConnectionResetError:
        return False


def _frame(kind: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame of the connection, without flags."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, 0]) + bytes(4) + payload


def _read_frame(stream) -> tuple[int, bytes] | None:
    """Kind and payload of the next frame; None when the connection has ended."""
    head = stream.read(9)
    if len(head) < 9:
        return None
    return head[3], stream.read(int.from_bytes(head[:3], "big"))


@contextlib.contextmanager
def _allocator(folder: pathlib.Path, *arguments: str, **options):
    service = ServiceProcess("ratequant-allocator", folder, "--data-dir", str(folder / "data"), *arguments, **options)
    with service:
        yield service
        assert service.stop() == 0, service.log.read_text()


def test_who_is_connected_is_served_while_too_many_connect_and_the_store_keeps_its_files(tmp_path):
    # 1,500 files: half are the store's and everything else's, a connection takes two.
    most = 375
    prefix = ("prlimit", "--nofile=1500:1500")
    with _allocator(tmp_path, "--max-connections", "20000", prefix=prefix) as allocator, contextlib.ExitStack() as stack:
        assert f"1500 open files allow {most} connections, not 20000" in allocator.log.read_text()
        channel = stack.enter_context(grpc.insecure_channel(allocator.endpoint))
        early = allocation_service_pb2_grpc.RegistryServiceStub(channel)
        assert not early.ListModels(allocation_service_pb2.ListModelsRequest(), timeout=PATIENCE).models
        sockets = [stack.enter_context(_connect(allocator)) for _ in range(most + 200)]
        served = sum(map(_is_served, sockets))
        assert served == most - 1
        assert f"there are {most}" in allocator.log.read_text()
        created = allocation_service_pb2.CreatePolicyRequest(policy_id="kept")
        created.policy.allowed_widths.append(4)
        early.CreatePolicy(created, timeout=PATIENCE)
        for connection in sockets:
            connection.close()
        late = stack.enter_context(Client(allocator.endpoint, timeout=PATIENCE))
        assert list(late.list_models()) == []


def test_one_address_cannot_take_every_connection(tmp_path):
    with _allocator(tmp_path, "--client-connections", "5") as allocator, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_connect(allocator)) for _ in range(8)]
        assert [_is_served(connection) for connection in sockets] == [True] * 5 + [False] * 3
        other = socket.create_connection(
            ("127.0.0.1", allocator.port), timeout=PATIENCE, source_address=("127.0.0.2", 0)
        )
        assert _is_served(stack.enter_context(other))


def test_a_client_that_pings_without_a_call_is_sent_away_and_no_other(tmp_path):
    with _allocator(tmp_path) as allocator, Client(allocator.endpoint, timeout=PATIENCE) as other, _connect(allocator) as rude:
        assert list(other.list_models()) == []
        rude.sendall(PREFACE + _frame(SETTINGS) + 5 * _frame(PING, bytes(8)))
        with rude.makefile("rb") as stream:
            frames = iter(lambda: _read_frame(stream), None)
            payload = next(payload for kind, payload in frames if kind == GOAWAY)
        assert int.from_bytes(payload[4:8], "big") == ENHANCE_YOUR_CALM
        assert payload[8:] == b"too_many_pings"
        assert list(other.list_models()) == []


@pytest.mark.parametrize("option", ["--max-connections", "--client-connections"])
def test_no_connections_at_all_is_refused(tmp_path, option):
    with pytest.raises(AssertionError, match=f"{option}.*0"):
        ServiceProcess("ratequant-allocator", tmp_path, "--data-dir", str(tmp_path / "data"), option, "0")


def test_silent_connections_give_their_places_back(tmp_path):
    with _allocator(tmp_path, "--max-connections", "1") as allocator:
        with _connect(allocator) as silent:
            assert _is_served(silent)

            def answers() -> bool:
                with Client(allocator.endpoint, timeout=1) as client, contextlib.suppress(Exception):
                    return list(client.list_models()) == []
                return False

            # gRPC gives a client 20 s to say that it speaks HTTP/2.
            wait_until(answers, "a silent connection keeps its place", PATIENCE * 2)
