"""CodeGen2.5: completion and infilling of code, with everything around the models."""

from codegen25.complete import Completion, Model, Score, load
from codegen25.engine.sampling import Sampling
from codegen25.errors import CodegenError, UsageError

__version__ = "0.1.0"
__all__ = ["CodegenError", "Completion", "Model", "Sampling", "Score", "UsageError", "load"]
