"""llama.cpp, by xllamacpp's server in this process. Times are llama.cpp's own, without the server around it."""

from __future__ import annotations

from typing import Any

import xllamacpp

KV = {"f16": xllamacpp.ggml_type.GGML_TYPE_F16, "f32": xllamacpp.ggml_type.GGML_TYPE_F32}
FLASH = {
    "auto": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


class Engine:
    """One model, loaded by `load`; every other method needs it."""

    def load(
        self,
        path: str,
        threads: int,
        window: int = 1024,
        flash: str = "auto",
        batch: int = 512,
        repack: bool = True,
        kv: str = "f16",
    ) -> dict[str, Any]:
        """Load the GGUF file `path`. `repack`: weights laid out anew for the CPU while they are loaded."""
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx, params.n_parallel = window, 1
        params.n_batch = params.n_ubatch = batch
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.flash_attn_type = FLASH[flash]
        params.no_extra_bufts = not repack
        params.cache_type_k = params.cache_type_v = KV[kv]
        params.n_gpu_layers = 0
        params.fit_params = False  # no guessing at memory sizes: the window is the one that was asked for
        params.n_ctx_checkpoints = params.cache_ram_mib = 0  # no copies of old caches between requests
        params.use_jinja = params.enable_chat_template = False
        params.n_threads_http = 1
        self.server = xllamacpp.Server(params)
        return {"version": xllamacpp.__version__, "system": xllamacpp.get_system_info().strip(" |")}

    def _run(self, prompt: list[int], n: int, cached: bool) -> dict[str, Any]:
        ask = {
            "prompt": prompt, "n_predict": n, "cache_prompt": cached, "temperature": 0.0, "samplers": ["temperature"],
            "ignore_eos": True,
        }  # fmt: skip
        answer: dict[str, Any] = self.server.handle_completions(ask)
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def decode(self, context: list[int], n: int) -> dict[str, Any]:
        """Seconds of `n` single-token steps, greedy, behind `context`."""
        timings = self._run(context, n + 1, cached=True)["timings"]
        assert timings["predicted_n"] == n + 1, timings  # the first token is the prompt's: its time is not in it
        return {"seconds": timings["predicted_ms"] / 1000, "tokens": n}

    def prefill(self, tokens: list[int]) -> dict[str, Any]:
        """Seconds of reading a prompt, up to the logits of its last token."""
        timings = self._run(tokens, 1, cached=False)["timings"]
        assert timings["prompt_n"] == len(tokens), timings
        return {"seconds": timings["prompt_ms"] / 1000, "tokens": len(tokens)}

    def verify(self, context: list[int], tokens: list[int]) -> dict[str, Any]:
        """Seconds of running `tokens` at once behind `context`, which is in the cache."""
        self._run(context, 1, cached=True)
        timings = self._run(context + tokens, 1, cached=True)["timings"]
        assert timings["prompt_n"] == len(tokens), timings
        return {"seconds": timings["prompt_ms"] / 1000, "tokens": len(tokens)}
