"""What of an API would break those who still use an older one."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import descriptor_pb2 as descriptors

_Field = descriptors.FieldDescriptorProto


def breaking_changes(old: descriptors.FileDescriptorSet, new: descriptors.FileDescriptorSet) -> list[str]:
    """Every way in which `new` can't talk to who was built with `old`; empty when it
    can. Additions are fine, and so is taking a field away that `reserved` names.
    """
    before, after = _elements(old), _elements(new)
    found = []
    for name, element in before.items():
        if name not in after:
            found.append(f"{name} is gone")
        elif type(element) is not type(after[name]):
            found.append(f"{name} has become something else")
        else:
            found += _CHECKS[type(element)](name, element, after[name])
    return found


def _elements(files: descriptors.FileDescriptorSet) -> dict[str, object]:
    """Messages, enums and methods by full name."""
    found: dict[str, object] = {}
    for file in files.file:
        for message in file.message_type:
            found.update(_nested(f"{file.package}.{message.name}", message))
        found.update({f"{file.package}.{enum.name}": enum for enum in file.enum_type})
        for service in file.service:
            for method in service.method:
                found[f"{file.package}.{service.name}.{method.name}"] = method
    return found


def _nested(name: str, message: descriptors.DescriptorProto) -> Iterator[tuple[str, object]]:
    yield name, message
    for enum in message.enum_type:
        yield f"{name}.{enum.name}", enum
    for nested in message.nested_type:
        yield from _nested(f"{name}.{nested.name}", nested)


def _message(name: str, old: descriptors.DescriptorProto, new: descriptors.DescriptorProto) -> list[str]:
    fields = {field.number: field for field in new.field}
    found = []
    for field in old.field:
        now = fields.get(field.number)
        if now is None:
            if not any(r.start <= field.number < r.end for r in new.reserved_range):
                found.append(f"{name}.{field.name} ({field.number}) is gone and not reserved")
            continue
        label = f"{name}.{field.name} ({field.number})"
        for what, before, after in _identity(field, old, now, new):
            if before != after:
                found.append(f"{label}: {what} was {before}, is {after}")
    return found


def _identity(field: _Field, old, now: _Field, new) -> Iterator[tuple[str, object, object]]:
    """What of a field is on the wire or in JSON."""
    yield "name", field.name, now.name
    yield "JSON name", field.json_name, now.json_name
    yield "type", _type(field), _type(now)
    yield "repeated", field.label == _Field.LABEL_REPEATED, now.label == _Field.LABEL_REPEATED
    yield "presence", field.proto3_optional, now.proto3_optional
    yield "oneof", _oneof(field, old), _oneof(now, new)


def _type(field: _Field) -> str:
    return field.type_name or _Field.Type.Name(field.type)


def _oneof(field: _Field, message: descriptors.DescriptorProto) -> str:
    in_oneof = field.HasField("oneof_index") and not field.proto3_optional
    return message.oneof_decl[field.oneof_index].name if in_oneof else ""


def _enum(name: str, old: descriptors.EnumDescriptorProto, new: descriptors.EnumDescriptorProto) -> list[str]:
    values = {value.number: value.name for value in new.value}
    return [
        f"{name}: {value.name} ({value.number}) is {values.get(value.number, 'gone')}"
        for value in old.value
        if values.get(value.number) != value.name
    ]


def _method(name: str, old: descriptors.MethodDescriptorProto, new: descriptors.MethodDescriptorProto) -> list[str]:
    parts = ("input_type", "output_type", "client_streaming", "server_streaming")
    return [
        f"{name}: {part} was {getattr(old, part)}, is {getattr(new, part)}"
        for part in parts
        if getattr(old, part) != getattr(new, part)
    ]


_CHECKS = {
    descriptors.DescriptorProto: _message,
    descriptors.EnumDescriptorProto: _enum,
    descriptors.MethodDescriptorProto: _method,
}
