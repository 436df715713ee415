"""Opset and IR version of ONNX models: the lowest that the operations need, or another opset.

A runtime refuses files of newer versions than its own: https://onnx.ai/onnx/repo-docs/Versioning.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from utils.cli.errors import UserError

TRACED_OPSET = 18  # what torch writes without a conversion
_LOWEST = 7  # ONNX's converter and ONNX Runtime begin here


def check_opset(opset: int) -> None:
    """Check that the installed package onnx knows an opset.

    Raises:
        UserError: it does not; names the limits.
    """
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if not _LOWEST <= opset <= newest:
        raise UserError(f"--opset {opset}: onnx {onnx.__version__} knows {_LOWEST} to {newest}")


def set_opset(model: Any, opset: int | None) -> Any:
    """Return an ONNX model in an opset, with the lowest IR version for it; `model` may change in place.

    None is the opset of the newest operation: all of them mean the same in it, so nothing is converted.

    Raises:
        UserError: an operation does not exist in the opset; names the lowest that works.
    """
    import onnx

    nodes = [node for graph in graphs_of(model.graph) for node in graph.node]
    used = {"", *(node.domain for node in nodes)}
    # Merged models import a domain twice, and ONNX Runtime's quantization some that no operation is of.
    versions = {one.domain: one.version for one in model.opset_import if one.domain in used}
    kinds = {node.op_type for node in nodes if not node.domain}
    schemas = {kind: onnx.defs.get_schema(kind, versions[""]) for kind in kinds}
    versions[""] = max(schema.since_version for schema in schemas.values())
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*one) for one in versions.items())
    if opset is not None and opset != versions[""]:
        for node in nodes:  # older opsets lack attributes that the converter would keep
            usual = [] if node.domain else schemas[node.op_type].attributes.values()
            _drop_defaults(node, [one.default_value for one in usual])
        model = _convert(model, opset, versions[""])
    model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    return model


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yield a graph and the graphs in the attributes of its operations."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from graphs_of(inner)


def _convert(model: Any, opset: int, lowest: int) -> Any:
    """Convert a model to an opset; in `lowest` and above nothing is missing."""
    from onnx import checker, version_converter

    reason = ""
    for number in range(opset, max(opset, lowest) + 1):
        try:
            converted = version_converter.convert_version(model, number)
            checker.check_model(converted)
        except Exception as error:  # the converter has no exceptions of its own
            reason = reason or " ".join(str(error).split()).rpartition(" failed: ")[2]
            continue
        if number == opset:
            return converted
        raise UserError(f"--opset {opset}: this network needs {number} or more ({reason})")
    raise UserError(f"--opset {opset}: onnx cannot convert this network ({reason})")


def _drop_defaults(node: Any, defaults: list[Any]) -> None:
    kept = [one for one in node.attribute if one not in defaults]
    del node.attribute[:]
    node.attribute.extend(kept)
