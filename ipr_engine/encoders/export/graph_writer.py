"""Writing an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need

OPSET = 17
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
_PURPOSE = "exporting an encoder"


class GraphWriter:
    """Nodes in the order they are written, and their constants; a value is the name of a tensor."""

    def __init__(self) -> None:
        self._onnx = need("onnx", _PURPOSE, "export")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, array: NDArray[Any] | np.generic | Sequence[int]) -> str:
        """Add a constant under a name of its own; the same name again is the same constant. Plain ints are int64."""
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Add one operator; return its output's name, or a list of them where it has several."""
        number = len(self._nodes)
        names = [f"{op}_{number}.{index}" for index in range(outputs)]
        node = self._onnx.helper.make_node(op, inputs, names, name=f"{op}_{number}", domain=domain, **attributes)
        self._nodes.append(node)
        return names[0] if outputs == 1 else names

    def save(self, path: Path, *, inputs: Sequence[str], output: str, dim: int) -> None:
        """Write the graph: inputs (batch, tokens) int64 -> `embedding` (batch, dim) float32, from the value `output`."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        self._nodes.append(helper.make_node("Identity", [output], ["embedding"], name="embedding"))
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, kinds.INT64, ["batch", "tokens"]) for name in inputs],
            [helper.make_tensor_value_info("embedding", kinds.FLOAT, ["batch", dim])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="ipr_engine", ir_version=8)
        self._onnx.save_model(model, str(path))
