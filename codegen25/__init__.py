"""CodeGen2.5: completion and infilling of code, with everything around the models.

from codegen25 import load
model = load("nano")
model.infill("def mean(xs):\n    return ", "\n").text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codegen25.complete import Completion, Model, Score, load
    from codegen25.engine.sampling import Sampling
    from codegen25.errors import CodegenError, UsageError

__version__ = "0.1.0"
__all__ = ["CodegenError", "Completion", "Model", "Sampling", "Score", "UsageError", "load"]

_HOMES = {
    "CodegenError": "codegen25.errors",
    "Sampling": "codegen25.engine.sampling",
    "UsageError": "codegen25.errors",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: the command line's `--help` needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "codegen25.complete")), name)
