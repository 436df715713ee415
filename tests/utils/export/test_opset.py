"""Opset and IR version of ONNX models, on graphs of a few operations."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from utils.cli.errors import UserError
from utils.export.opset import check_opset, graphs_of, set_opset


def make_model(*nodes, opset: int = 18, imports: int = 1):
    """Return a model from x, (1, 2, 4, 4), to y with initializers of axes and a condition."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, "h", "w"])
    values = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(np.array(True), "c")]
    graph = helper.make_graph(nodes, "tiny", [x], [y], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)] * imports, ir_version=10)


def versions(model) -> tuple[int, list[tuple[str, int]]]:
    return model.ir_version, [(one.domain, one.version) for one in model.opset_import]


def run(model) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4) - 9})[0]


def mean(given: str, made: str):
    return helper.make_node("ReduceMean", [given, "axes"], [made], keepdims=1, noop_with_empty_axes=0)


def relu(given: str, made: str):
    return helper.make_node("Relu", [given], [made])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([relu("x", "y")], (7, [("", 14)])),
        ([mean("x", "m"), relu("m", "y")], (8, [("", 18)])),
        ([helper.make_node("Sigmoid", ["x"], ["y"])], (7, [("", 13)])),
    ],
)
def test_versions_are_those_of_the_newest_operation(nodes, expected) -> None:
    model = make_model(*nodes, imports=2)  # as merged models have them
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 5))  # as quantized models have it
    before = run(make_model(*nodes))
    made = set_opset(model, None)
    onnx.checker.check_model(made)
    assert versions(made) == expected
    np.testing.assert_array_equal(run(made), before)


def test_operations_of_subgraphs_count() -> None:
    y = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2, "h", "w"])
    branches = {
        name: helper.make_graph([node], name, [], [y])
        for name, node in (("then_branch", mean("x", "z")), ("else_branch", relu("x", "z")))
    }
    model = make_model(helper.make_node("If", ["c"], ["y"], **branches))
    assert [graph.name for graph in graphs_of(model.graph)] == ["tiny", "else_branch", "then_branch"]
    assert versions(set_opset(model, None)) == (8, [("", 18)])


@pytest.mark.parametrize(("opset", "ir"), [(14, 7), (17, 8), (18, 8), (19, 9), (21, 10)])
def test_another_opset_computes_the_same(opset: int, ir: int) -> None:
    nodes = [mean("x", "m"), relu("m", "y")]
    made = set_opset(make_model(*nodes), opset)
    onnx.checker.check_model(made)
    assert versions(made) == (ir, [("", opset)])
    np.testing.assert_array_equal(run(made), run(make_model(*nodes)))


def test_too_low_an_opset_names_the_lowest_that_works() -> None:
    with pytest.raises(UserError, match=r"^--opset 13: this network needs 14 or more \(.*Relu\)$") as caught:
        set_opset(make_model(mean("x", "m"), relu("m", "y")), 13)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("opset", [0, 6, 999])
def test_an_unknown_opset_is_refused(opset: int) -> None:
    with pytest.raises(UserError, match=rf"--opset {opset}: onnx [\d.]+ knows 7 to \d+"):
        check_opset(opset)
