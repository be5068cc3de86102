"""What a service with mTLS shows from outside, on which port, and to whom."""

from __future__ import annotations

import contextlib
import pathlib
import re
import socket
import subprocess
import urllib.request
from datetime import datetime, timezone

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from certificates import Authority
from service_process import ServiceProcess

PATIENCE = 60
SERVING = health_pb2.HealthCheckResponse.SERVING


class Observed:
    """An allocator that asks for client certificates, with every port it can have."""

    def __init__(self, folder: pathlib.Path, *flags: str):
        self.authority = Authority(folder / "ca")
        self.server = self.authority.sign(folder / "keys", "server", "DNS:localhost,IP:127.0.0.1")
        self.client = self.authority.sign(folder / "keys", "client", "DNS:client")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.health = f"127.0.0.1:{free.getsockname()[1]}"
        self.process = ServiceProcess(
            "ratequant-allocator",
            folder,
            *("--data-dir", str(folder / "data"), "--health-address", self.health),
            *("--admin-listen", "0", "--admin-port-file", str(folder / "admin")),
            *("--tls-cert", str(self.server[0]), "--tls-key", str(self.server[1])),
            *("--tls-client-ca", str(self.authority.certificate), *flags),
        )
        self.admin = int((folder / "admin").read_text())

    def channel(self, certificate: bool = True) -> grpc.Channel:
        pair = [path.read_bytes() for path in reversed(self.client)] if certificate else [None, None]
        credentials = grpc.ssl_channel_credentials(self.authority.certificate.read_bytes(), *pair)
        return grpc.secure_channel(f"localhost:{self.process.port}", credentials)


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    made = Observed(tmp_path_factory.mktemp("observed"), "--channelz")
    with made.process:
        yield made


def _servers_by_channelz(channel: grpc.Channel) -> bytes:
    """grpc.channelz.v1.GetServersResponse, as it comes."""
    return channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")(b"", timeout=PATIENCE)


@contextlib.contextmanager
def _refused(code: grpc.StatusCode):
    with pytest.raises(grpc.RpcError) as refused:
        yield
    assert refused.value.code() == code


def test_certificates_are_shown_with_their_end(observed: Observed):
    with urllib.request.urlopen(f"http://127.0.0.1:{observed.admin}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    for name, path in (("server", observed.server[0]), ("client-ca", observed.authority.certificate)):
        ends = subprocess.run(
            ["openssl", "x509", "-noout", "-enddate", "-in", path], capture_output=True, text=True, check=True
        ).stdout.strip()
        end = datetime.strptime(ends, "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc)
        shown = re.search(rf'^ratequant_tls_certificate_expiry_seconds{{certificate="{name}"}} (\S+)$', text, re.MULTILINE)
        assert shown is not None and float(shown[1]) == end.timestamp()


def test_reflection_and_health_answer_on_both_ports_and_the_api_only_over_tls(observed: Observed):
    with observed.channel() as encrypted, grpc.insecure_channel(observed.health) as plain:
        for channel in (encrypted, plain):
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            assert answer.status == SERVING
        described = ProtoReflectionDescriptorDatabase(encrypted)
        names = set(described.get_services())
        assert {"ratequant.v1.RegistryService", "ratequant.v1.AllocationService", "grpc.health.v1.Health"} <= names
        pool = descriptor_pool.DescriptorPool(described)
        service = pool.FindServiceByName("ratequant.v1.AllocationService")
        assert service.methods_by_name["GetBitMap"].input_type.fields_by_name["budget"].message_type is not None
        on_plain = set(ProtoReflectionDescriptorDatabase(plain).get_services())
        assert "grpc.health.v1.Health" in on_plain
        assert not [name for name in on_plain if name.startswith(("ratequant.", "grpc.channelz."))]
        with _refused(grpc.StatusCode.UNIMPLEMENTED):
            plain.unary_unary("/ratequant.v1.RegistryService/ListModels")(b"", timeout=PATIENCE)


def test_channelz_answers_whom_mtls_lets_in_and_nobody_on_the_health_port(observed: Observed):
    with observed.channel() as channel:
        assert _servers_by_channelz(channel)
    with observed.channel(certificate=False) as stranger, _refused(grpc.StatusCode.UNAVAILABLE):
        _servers_by_channelz(stranger)
    with grpc.insecure_channel(observed.health) as plain, _refused(grpc.StatusCode.UNIMPLEMENTED):
        _servers_by_channelz(plain)


def test_without_its_flag_there_is_no_channelz(tmp_path):
    quiet = Observed(tmp_path)
    with quiet.process, quiet.channel() as channel, _refused(grpc.StatusCode.UNIMPLEMENTED):
        _servers_by_channelz(channel)
