"""Low-rank sums: they begin as nothing, merge into what they do, and are PEFT's, which is the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from codegen25.errors import CodegenError, UsageError
from codegen25.model.checkpoint import load_llama, save_llama
from codegen25.model.llama import Llama
from codegen25.train.lora import (
    CONFIG,
    WEIGHTS,
    Lora,
    adapt,
    adapted,
    load_adapter,
    merged_weights,
    read_adapter,
    write_adapter,
)  # fmt: skip
from codegen25.train.loss import cross_entropy_sum
from codegen25.train.optim import MasterOptimizer

TOKENS = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(3))
LORA = Lora(rank=4, alpha=12.0)


def trained(lora: Lora = LORA, dtype: torch.dtype = torch.float32) -> Llama:
    """An adapted model whose sums are far from nothing."""
    model = tiny.model(dtype)
    adapt(model, lora, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in adapted(model).values():
            layer.b.normal_(std=0.3, generator=generator)
    return model


def merged(model: Llama, folder: Path) -> Llama:
    plain = Llama(model.config)
    plain.load_state_dict({**dict(merged_weights(model)), "lm_head.weight": model.embed_tokens.weight})
    save_llama(plain, folder, dtype="float32")
    return plain


def test_it_begins_as_the_model_was_and_only_sums_are_trained() -> None:
    plain, model = tiny.model(), tiny.model()
    adapt(model, LORA)
    assert torch.equal(plain(TOKENS), model(TOKENS))
    asking = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert asking == {f"{name}.{side}" for name in adapted(model) for side in "ab"}
    assert len(adapted(model)) == 7 * model.config.layers


def test_training_moves_the_sums_alone_and_lowers_the_loss() -> None:
    model = tiny.model()
    frozen = {name: parameter.clone() for name, parameter in model.named_parameters()}
    adapt(model, LORA)
    optimizer = MasterOptimizer(model)

    def loss() -> Tensor:
        states = model.hidden(TOKENS[:, :-1]).flatten(0, 1)
        return cross_entropy_sum(states, model.lm_head.weight, TOKENS[:, 1:].flatten()) / states.shape[0]

    before = float(loss())
    for _ in range(20):
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.accumulate()
        optimizer.step(1e-2, 1.0, optimizer.norm())
    assert float(loss()) < before - 0.1
    left = {name.replace(".base", ""): p for name, p in model.named_parameters() if not p.requires_grad}
    assert left.keys() == frozen.keys() and all(torch.equal(left[name], frozen[name]) for name in frozen)


some_layers = st.sets(st.sampled_from(["q_proj", "v_proj", "o_proj", "down_proj", "up_proj"]))


@given(st.integers(1, 9), st.floats(0.1, 64), some_layers)
def test_merging_is_the_same_function(rank: int, alpha: float, layers: set[str]) -> None:
    model = trained(Lora(rank, alpha, tuple(sorted(layers))))
    plain = Llama(model.config)
    plain.load_state_dict({**dict(merged_weights(model)), "lm_head.weight": model.embed_tokens.weight})
    torch.testing.assert_close(plain(TOKENS), model(TOKENS), rtol=1e-4, atol=1e-3)


def test_merged_in_bf16_is_the_nearest_bf16() -> None:
    model = trained(dtype=torch.bfloat16)
    name, layer = next(iter(adapted(model).items()))
    exact = layer.base.weight.double() + layer.scale * layer.b.double() @ layer.a.double()
    torch.testing.assert_close(dict(merged_weights(model))[f"{name}.weight"].double(), exact, rtol=2**-8, atol=1e-6)


def peft_model(base: Path, adapter: Path | None = None) -> Any:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        return peft.PeftModel.from_pretrained(model, adapter)
    lora = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, lora)


def test_peft_reads_ours(tmp_path: Path) -> None:
    save_llama(tiny.model(), tmp_path / "base", dtype="float32")
    model = trained()
    (tmp_path / "adapter").mkdir()
    write_adapter(model, LORA, tmp_path / "adapter", str(tmp_path / "base"))
    with torch.no_grad():
        theirs = peft_model(tmp_path / "base", tmp_path / "adapter")
        torch.testing.assert_close(theirs(TOKENS).logits, model(TOKENS), rtol=1e-4, atol=1e-4)
        plain = merged(model, tmp_path / "merged")
        torch.testing.assert_close(theirs.merge_and_unload()(TOKENS).logits, plain(TOKENS), rtol=1e-4, atol=1e-4)


def test_we_read_peft(tmp_path: Path) -> None:
    save_llama(tiny.model(), tmp_path / "base", dtype="float32")
    theirs = peft_model(tmp_path / "base")
    theirs.save_pretrained(tmp_path / "adapter")
    model = load_llama(tmp_path / "base", dtype="float32")
    assert load_adapter(model, tmp_path / "adapter") == Lora(3, 5.0, ("down_proj", "q_proj"))
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), theirs(TOKENS).logits, rtol=1e-4, atol=1e-4)


def test_written_and_read_again(tmp_path: Path) -> None:
    model = trained()
    write_adapter(model, LORA, tmp_path, "base")
    again = tiny.model()
    lora = load_adapter(again, tmp_path)
    assert (lora.rank, lora.alpha, set(lora.layers)) == (LORA.rank, LORA.alpha, set(LORA.layers))
    assert torch.equal(again(TOKENS), model(TOKENS))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 0}, "rank of 0"),
        ({"r": "x"}, "no sound adapter"),
        ({"lora_alpha": float("inf")}, "alpha"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
        ({"target_modules": ["q_proj"]}, "only in one of them"),
        ({"r": 5}, "must be [5"),
    ],
)
def test_other_adapters_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_adapter(trained(), LORA, tmp_path, "base")
    said = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(said | change))
    with pytest.raises(CodegenError) as error:
        load_adapter(tiny.model(), tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("content", [None, b"", b"\0" * 64, b"{}"])
def test_damaged_files_are_refused(name: str, content: bytes | None, tmp_path: Path) -> None:
    write_adapter(trained(), LORA, tmp_path, "base")
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CodegenError):
        read_adapter(tmp_path)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}, {"layers": ("lm_head",)}])
def test_what_is_no_lora(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Lora(**wrong)
