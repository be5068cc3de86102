"""The API as descriptors, now and as it was."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from serving import ROOT

PACKAGE = "ratequant.v1"


def current_api() -> descriptor_pb2.FileDescriptorSet:
    """What proto/ says now, with everything it imports."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "api.pb"
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "proto", "-I", sysconfig.get_path("purelib")]
        command += ["--include_imports", f"--descriptor_set_out={out}", *sorted((ROOT / "proto").rglob("*.proto"))]
        subprocess.run([*map(str, command)], check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def own(files: descriptor_pb2.FileDescriptorSet) -> descriptor_pb2.FileDescriptorSet:
    """The files of the project's own package."""
    return descriptor_pb2.FileDescriptorSet(file=[file for file in files.file if file.package == PACKAGE])


class Api:
    """Messages of an API that may be older than this build's."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet):
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.AddSerializedFile(file.SerializeToString())

    def message(self, name: str, content: bytes = b"") -> Message:
        """A message of the package, parsed from bytes."""
        descriptor = self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
        return message_factory.GetMessageClass(descriptor).FromString(content)

    def answer(self, method: str, content: bytes) -> Message:
        """The answer of a method, "Service/Method", parsed from bytes."""
        service, name = method.split("/")
        found = self._pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(name)
        return message_factory.GetMessageClass(found.output_type).FromString(content)


def call(channel: grpc.Channel, method: str, request: bytes) -> bytes:
    """The bytes that a unary method, "Service/Method", answers with."""
    return channel.unary_unary(f"/{PACKAGE}.{method}")(request, timeout=60)
