"""transformers on PyTorch, which reads the same GGUF file in its own way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import transformers


class Engine:
    """One model, loaded by `load`; every other method needs it."""

    def load(self, path: str, threads: int, dtype: str = "float32") -> dict[str, Any]:
        torch.set_num_threads(threads)
        file = Path(path)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
        self.model = model.train(False)
        return {"version": f"{transformers.__version__}, torch {torch.__version__}"}

    def _forward(self, tokens: list[int], cache: Any, last: bool = True) -> Any:
        """Logits of the last token, or of all."""
        ids = torch.tensor([tokens])
        return self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=int(last)).logits

    @torch.inference_mode()
    def decode(self, context: list[int], n: int) -> dict[str, Any]:
        cache = transformers.DynamicCache(config=self.model.config)
        token = int(self._forward(context, cache)[0, -1].argmax())
        start = time.perf_counter()
        for _ in range(n):
            token = int(self._forward([token], cache)[0, -1].argmax())
        return {"seconds": time.perf_counter() - start}

    @torch.inference_mode()
    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        start = time.perf_counter()
        self._forward(tokens, transformers.DynamicCache(config=self.model.config))
        return {"seconds": time.perf_counter() - start}

    @torch.inference_mode()
    def verify(self, context: list[int], tokens: list[int]) -> dict[str, Any]:
        cache = transformers.DynamicCache(config=self.model.config)
        self._forward(context, cache)
        start = time.perf_counter()
        self._forward(tokens, cache, last=False)
        return {"seconds": time.perf_counter() - start}
