"""OpenVINO GenAI, which reads the same GGUF file. Times are its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino  # type: ignore[import-not-found]
import openvino_genai  # type: ignore[import-not-found]


class Engine:
    """One model, loaded by `load`; every other method needs it."""

    def load(self, path: str, threads: int) -> dict[str, Any]:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # every prompt is to be read
        settings = {"INFERENCE_NUM_THREADS": threads, "scheduler_config": scheduler}
        self.pipeline = openvino_genai.LLMPipeline(path, "CPU", **settings)
        return {"version": openvino_genai.__version__}

    def _run(self, prompt: list[int], n: int) -> Any:
        ids = np.array([prompt], dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = n, True, False
        found = self.pipeline.generate(inputs, config)
        assert len(found.tokens[0]) == n, f"{len(found.tokens[0])} tokens instead of {n}"
        return found.perf_metrics

    def decode(self, context: list[int], n: int) -> dict[str, Any]:
        """Seconds of `n` single-token steps, greedy, behind `context`."""
        return {"seconds": self._run(context, n + 1).get_tpot().mean / 1000 * n}

    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        """Seconds to the first token behind a prompt."""
        return {"seconds": self._run(tokens, 1).get_ttft().mean / 1000}

    def verify(self, context: list[int], tokens: list[int]) -> dict[str, Any]:
        raise RuntimeError("its interface runs no given tokens on a cache")
