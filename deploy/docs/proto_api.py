"""The services' reference: RPCs and messages with the comments of the .proto files."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto

import pages
from ratequant.report.markup import Markup, element, join

_PACKAGE = "ratequant.v1"
# Numbers of fields in descriptor.proto, which a comment's path is made of.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _ONEOFS = 2, 3, 4, 8
_METHODS, _VALUES = 2, 2


def write(root: Path, out: Path) -> list[str]:
    """Writes one page and returns the elements without a comment."""
    faults: list[str] = []
    files = sorted(_compile(root), key=lambda file: (not file.service, file.name))
    sections = [_File(file, faults).section() for file in files]
    contents = element("ul", *(element("li", _link(f"file-{file.name}", file.name)) for file in files))
    body = join(element("h1", f"Services: {_PACKAGE}"), contents, *sections)
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(pages.page(f"RateQuant services: {_PACKAGE}", body, up="../"), encoding="utf-8")
    return faults


def _compile(root: Path) -> Iterator[FileDescriptorProto]:
    """Descriptors of our files, comments included."""
    google = Path(importlib.util.find_spec("google.rpc").submodule_search_locations[0]).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "descriptors")
        sources = sorted(str(source) for source in (root / "proto").rglob("*.proto"))
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{root / 'proto'}", f"-I{google}",
             "--include_source_info", f"--descriptor_set_out={path}", *sources],
            check=True,
        )  # fmt: skip
        yield from descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file


class _File:
    """One .proto file's section of the page."""

    def __init__(self, file: FileDescriptorProto, faults: list[str]):
        self._file, self._faults = file, faults
        locations = file.source_code_info.location
        self._comments = {tuple(place.path): place.leading_comments for place in locations}

    def section(self) -> Markup:
        parts = [element("h2", self._file.name, id=f"file-{self._file.name}")]
        for index, service in enumerate(self._file.service):
            parts.append(self._service(index, service))
        for index, message in enumerate(self._file.message_type):
            parts.append(self._message((_MESSAGES, index), message, f"{self._file.package}."))
        for index, enum in enumerate(self._file.enum_type):
            parts.append(self._enum((_ENUMS, index), enum, f"{self._file.package}."))
        return element("section", *parts)

    def _service(self, index: int, service: descriptor_pb2.ServiceDescriptorProto) -> Markup:
        path = (_SERVICES, index)
        name = f"{self._file.package}.{service.name}"
        parts = [element("h3", f"service {service.name}", id=name), self._comment(path, name)]
        for number, method in enumerate(service.method):
            label = f"{name}.{method.name}"
            streams = {True: "stream ", False: ""}
            parts.append(element(
                "h4", f"rpc {method.name}(", streams[method.client_streaming], _type_link(method.input_type), ") → ",
                streams[method.server_streaming], _type_link(method.output_type), id=label,
            ))  # fmt: skip
            parts.append(self._comment((*path, _METHODS, number), label))
        return join(*parts)

    def _message(self, path: tuple[int, ...], message: DescriptorProto, scope: str) -> Markup:
        name = scope + message.name
        parts = [element("h3", f"message {_short(name)}", id=name), self._comment(path, name)]
        rows = []
        for number, oneof in enumerate(message.oneof_decl):
            # proto3's `optional` makes one that nobody wrote.
            if not oneof.name.startswith("_"):
                rows.append(self._row(f"oneof {oneof.name}", "", "", (*path, _ONEOFS, number), f"{name}.{oneof.name}"))
        for number, field in enumerate(message.field):
            rows.append(self._row(
                field.name, _field_type(field), str(field.number), (*path, _FIELDS, number), f"{name}.{field.name}",
                oneof=message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else "",
            ))  # fmt: skip
        parts.append(element("table", *rows) if rows else element("p", "No fields."))
        for number, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                parts.append(self._message((*path, _NESTED, number), nested, f"{name}."))
        for number, enum in enumerate(message.enum_type):
            parts.append(self._enum((*path, _NESTED_ENUMS, number), enum, f"{name}."))
        return join(*parts)

    def _enum(self, path: tuple[int, ...], enum: EnumDescriptorProto, scope: str) -> Markup:
        name = scope + enum.name
        rows = [
            self._row(value.name, "", str(value.number), (*path, _VALUES, number), f"{name}.{value.name}")
            for number, value in enumerate(enum.value)
        ]
        heading = element("h3", f"enum {_short(name)}", id=name)
        return join(heading, self._comment(path, name), element("table", *rows))

    def _row(
        self, name: str, type_: Markup | str, number: str, path: tuple[int, ...], label: str, oneof: str = ""
    ) -> Markup:
        belongs = f" (oneof {oneof})" if oneof and not oneof.startswith("_") else ""
        cells = [element("code", name), join(type_, belongs), number, self._comment(path, label)]
        return element("tr", *(element("td", cell) for cell in cells), id=label)

    def _comment(self, path: tuple[int, ...], label: str) -> Markup:
        text = self._comments.get(path, "")
        if not text.strip():
            self._faults.append(f"{self._file.name}: {label} has no comment")
        return pages.markdown("\n".join(line.removeprefix(" ") for line in text.splitlines()))


def _field_type(field: FieldDescriptorProto) -> Markup:
    repeated = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
    optional = "optional " if field.proto3_optional else ""
    if field.type_name:
        return join(repeated, optional, _type_link(field.type_name))
    plain = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return join(repeated, optional, plain)


def _type_link(name: str) -> Markup:
    """A type of ours links to where it is told; a foreign one doesn't."""
    name = name.removeprefix(".")
    if not name.startswith(f"{_PACKAGE}."):
        return element("code", name)
    return _link(name, _short(name))


def _link(anchor: str, text: str) -> Markup:
    return element("a", text, href=f"#{anchor}")


def _short(name: str) -> str:
    return name.removeprefix(f"{_PACKAGE}.")
