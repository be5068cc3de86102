"""The Python package's reference, by pdoc."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pdoc
import pdoc.doc
import pdoc.render

# What users import. Other modules are the package's own.
MODULES = (
    "ratequant",
    "ratequant.async_client",
    "ratequant.attention",
    "ratequant.cache",
    "ratequant.cache_format",
    "ratequant.capture",
    "ratequant.capture.capture_reader",
    "ratequant.capture.record",
    "ratequant.check",
    "ratequant.client",
    "ratequant.connections",
    "ratequant.errors",
    "ratequant.evaluate",
    "ratequant.evaluate.bundle",
    "ratequant.evaluate.options",
    "ratequant.evaluate.run",
    "ratequant.group_rule",
    "ratequant.kv_format",
    "ratequant.progress",
    "ratequant.quantizer",
    "ratequant.report.content",
    "ratequant.report.files",
    "ratequant.report.page",
    "ratequant.requests",
    "ratequant.retry",
    "ratequant.runtime",
    "ratequant.services",
    "ratequant.transport",
)


def write(out: Path) -> list[str]:
    """Writes HTML and returns what has no docstring."""
    for name in MODULES:
        _resolve_lazy_names(importlib.import_module(name))
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*MODULES, output_directory=out)
    return [fault for name in MODULES for fault in silent(pdoc.doc.Module.from_name(name))]


def _resolve_lazy_names(module) -> None:
    """pdoc sees what lies in a module, not what its __getattr__ would import."""
    for name in getattr(module, "__all__", ()):
        setattr(module, name, getattr(module, name))


def silent(module: pdoc.doc.Module) -> Iterator[str]:
    """What of a module has no docstring."""
    if not module.docstring:
        yield f"module {module.fullname} has no docstring"
    yield from _silent_members(module.own_members)


def _silent_members(members: list[pdoc.doc.Doc]) -> Iterator[str]:
    """Public functions and classes without a docstring. A method's may be that
    of the one it overrides; variables are told by those around them."""
    for member in members:
        if member.name.startswith("_") or not isinstance(member, (pdoc.doc.Function, pdoc.doc.Class)):
            continue
        if not member.docstring:
            yield f"{member.kind} {member.fullname} has no docstring"
        if isinstance(member, pdoc.doc.Class):
            yield from _silent_members(member.own_members)
