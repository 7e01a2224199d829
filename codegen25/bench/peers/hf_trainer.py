"""transformers' own `Trainer` on a LLaMA of the wanted shape, full rows of random tokens, every one of them learned."""

from __future__ import annotations

import time
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, vocabulary: int, window: int, count: int) -> None:
        self.ids = torch.randint(0, vocabulary, (count, window), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"input_ids": self.ids[number], "labels": self.ids[number]}


class Clock(transformers.TrainerCallback):
    """The seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


class Engine:
    """`run` does all of it."""

    def load(self, threads: int) -> dict[str, Any]:
        torch.set_num_threads(threads)
        return {"version": f"{transformers.__version__}, torch {torch.__version__}"}

    def run(
        self, config: dict[str, Any], rows: int, window: int, steps: int, settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Seconds of each of `steps` steps of `rows` rows; `settings` are `TrainingArguments` beside its defaults."""
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
        clock = Clock()
        with TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=rows, save_strategy="no",
                report_to="none", use_cpu=True, disable_tqdm=True, **settings,
            )  # fmt: skip
            data = Rows(config["vocab_size"], window, rows * steps)
            transformers.Trainer(model, arguments, train_dataset=data, callbacks=[clock]).train()
        return {"seconds": clock.seconds}
