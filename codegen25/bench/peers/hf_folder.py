"""transformers on PyTorch, from a Hugging Face folder: its tokenizer and its greedy text."""

from __future__ import annotations

from typing import Any

import torch
import transformers


class Engine:
    """One model, loaded by `load`; every other method needs it."""

    def load(self, path: str, threads: int, dtype: str) -> dict[str, Any]:
        torch.set_num_threads(threads)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
        self.model = model.train(False)
        return {"version": f"{transformers.__version__}, torch {torch.__version__}"}

    def encode(self, texts: list[str]) -> dict[str, Any]:
        """Ids of each text, in which control tokens are text."""
        return {"ids": [self.tokenizer(text, split_special_tokens=True).input_ids for text in texts]}

    @torch.inference_mode()
    def greedy(self, prompt: list[int], n: int, end: int) -> dict[str, Any]:
        """The likeliest token `n` times, or until `end`."""
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        out = self.model.generate(
            ids, attention_mask=mask, max_new_tokens=n, do_sample=False, eos_token_id=end, pad_token_id=end
        )
        return {"tokens": out[0, len(prompt) :].tolist()}
