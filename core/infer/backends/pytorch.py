"""PyTorch in eager mode on the CPU, from ``.pt2`` files of ``torch.export``; needs no class of the model's author.

Weights of INT8 kernels are repacked once at loading, as Inductor would. Nothing is compiled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.contracts.errors import EnvironmentProblem, UserError
from core.infer.backend import (
    BackendStatus,
    Execution,
    LoadOptions,
    Precision,
    Session,
    Shape,
    check_batch,
    check_model,
    first_line,
    installed_status,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INT8_NAMESPACE = "onednn::q"
_FLOAT_LAYERS = ("aten::conv", "aten::linear", "aten::addmm", "aten::mm", "aten::matmul", "aten::bmm")


def _operation(node: Any) -> str:
    """Return the name of what a graph node calls, such as ``aten::conv2d``; empty for anything else."""
    schema = getattr(node.target, "_schema", None)
    return schema.name if node.op == "call_function" and schema is not None else ""


def _constant(module: Any, argument: Any) -> tuple[bool, Any]:
    """Return whether a node's argument is known at loading, and its value."""
    if not hasattr(argument, "op"):
        return True, argument
    if argument.op != "get_attr":
        return False, None
    owner, _, leaf = argument.target.rpartition(".")
    return True, getattr(module.get_submodule(owner), leaf)


def _repack_weights(module: Any) -> None:
    """Do once what would be done at every call: repacking constant weights for oneDNN."""
    for node in list(module.graph.nodes):
        name = _operation(node)
        if not (name.startswith(_INT8_NAMESPACE) and name.endswith("_prepack")):
            continue
        arguments = [_constant(module, argument) for argument in node.args]
        if all(is_known for is_known, _ in arguments):
            module.register_buffer(node.name, node.target(*(value for _, value in arguments)), persistent=False)
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(node.name))
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _execution(module: Any) -> Execution:
    names = [_operation(node) for node in module.graph.nodes]
    int8 = sum(name.startswith(_INT8_NAMESPACE) and not name.endswith("_prepack") for name in names)
    floats = sum(name.startswith(_FLOAT_LAYERS) for name in names)
    return Execution(precision="int8" if int8 > floats else "fp32", int8_layers=int8, layers=int8 + floats)


def _input_shape(program: Any) -> Shape:
    inputs = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 1:
        raise UserError(f"The model has {len(inputs)} inputs.", "Only models with one input are taken.")
    return tuple(size if isinstance(size, int) else None for size in inputs[0])


class PyTorchSession:
    """A model exported by PyTorch; see ``core.infer.backend.Session``."""

    def __init__(self, program: Any, name: str) -> None:
        self._name = name
        self._shape = _input_shape(program)
        self._module = program.module(check_guards=False)
        _repack_weights(self._module)
        self._execution = _execution(self._module)

    @property
    def input_shape(self) -> Shape:
        """Shape of its input."""
        return self._shape

    @property
    def execution(self) -> Execution:
        """What its graph computes with."""
        return self._execution

    def infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores of a batch."""
        result: Any = self.bind(batch)()
        return result.float().numpy()

    def bind(self, batch: NDArray[np.float32]) -> Callable[[], object]:
        """Return a call on a tensor that shares the batch's memory."""
        import torch

        check_batch(self._shape, batch, self._name)
        tensor, module, inference_mode = torch.from_numpy(batch), self._module, torch.inference_mode

        def call() -> object:
            with inference_mode():
                return module(tensor)

        return call

    def close(self) -> None:
        """Drop the module."""
        del self._module


class PyTorchBackend:
    """Eager PyTorch on the CPU."""

    name = "pytorch"
    title = "PyTorch"
    library = "torch"
    suffixes: tuple[str, ...] = (".pt2",)
    precisions: tuple[Precision, ...] = ("fp32", "int8")

    def status(self) -> BackendStatus:
        """Tell whether torch is installed."""
        return installed_status(self.name, self.library)

    def load(self, model: Path, options: LoadOptions) -> Session:
        """Load a ``.pt2`` file; threads are set for the whole process, as PyTorch has one pool."""
        check_model(self, model, options.precision)
        if not self.status().is_available:
            raise EnvironmentProblem("PyTorch is not installed.", "Run: pip install torch")
        if not zipfile.is_zipfile(model):  # torch.export would try it as formats of old, with pages of warnings
            raise UserError(
                f"PyTorch cannot load {str(model)!r}: it is no .pt2 archive, or cut short.",
                "Give a .pt2 file written by torch.export.save.",
            )
        import torch

        torch.set_num_threads(options.threads)
        torch.set_float32_matmul_precision("highest")
        try:
            return PyTorchSession(torch.export.load(model), model.name)
        except (RuntimeError, ValueError, OSError, AssertionError, AttributeError, KeyError) as error:
            raise UserError(
                f"PyTorch {torch.__version__} cannot load {str(model)!r}: {first_line(error)}",
                "Give a .pt2 file written by torch.export.save.",
            ) from error


BACKEND = PyTorchBackend()
