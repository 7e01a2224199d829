"""What a device holds while it trains, in bytes and by part: pure arithmetic on a shape.

Counted is what the trainer allocates: weights and their gradients in bf16, masters and moments in fp32
(`optim.py`), what `model/llama.py` saves for the backward pass, and what a chunk of the loss takes (`loss.py`).
Measured runs are held against it (`tests/test_plan_memory.py`). What it leaves out: code, the allocator's slack, and
scratch space of the kernels.

A device's part of the weights and of all that belongs to them is one of `devices` shards (FSDP2, full shard: ZeRO
stage 3; Rajbhandari et al., 2020). Whole blocks exist while they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from codegen25.config import ModelConfig

OptimizerName = Literal["adamw", "muon"]
BF16, FP32 = 2, 4
# Logits that the loss holds at once: more take memory, fewer make its products small.
LOGITS = 1 << 26
PARTS = (
    "weights", "masters", "moments", "gradients", "step_gradients", "activations", "recomputed", "logits",
    "communication",
)  # fmt: skip
GATHERED = 3  # blocks that are whole at once: the one computed, the next one on its way, and the buffer it comes in


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. Parts do not all exist at once: `peak` says what does."""

    weights: int
    masters: int
    moments: int
    gradients: int
    step_gradients: int
    activations: int
    recomputed: int
    logits: int
    communication: int
    layer: int
    """Of `activations` or `recomputed`: a layer's, the last of which the end of the backward pass still holds."""

    @property
    def resident(self) -> int:
        """What is there all the time, the fp32 gradients that a step sums up among it."""
        return self.weights + self.masters + self.moments + self.step_gradients

    @property
    def peak(self) -> int:
        """The largest of three moments: the loss, and the beginning and the end of the backward pass."""
        moments = (
            self.activations + self.logits,
            self.activations + self.recomputed,
            self.layer + self.gradients,
        )
        return self.resident + self.communication + max(moments)

    def to_json(self) -> dict[str, int]:
        return {part: getattr(self, part) for part in PARTS} | {"peak": self.peak}


def block_parameters(config: ModelConfig) -> int:
    """Numbers of one layer."""
    outside = config.hidden_size * (1 + config.vocab_size * (1 if config.tied else 2))
    return (config.parameters - outside) // config.layers


def _norm_bytes(config: ModelConfig) -> int:
    """A token of `RMSNorm`: its fp32 copy and the reciprocal root, and two bf16 vectors around the weight."""
    return FP32 * (config.hidden_size + 1) + 2 * BF16 * config.hidden_size


def layer_bytes(config: ModelConfig, window: int) -> int:
    """What one layer saves for its backward pass, a token: the tensors that autograd keeps of `Block.forward`."""
    heads, groups = config.heads * config.head_dim, config.kv_heads * config.head_dim
    attention = BF16 * (2 * heads + 2 * groups) + FP32 * config.heads  # q and the output, k and v, log-sum-exp
    mask = BF16 * window
    feed_forward = 4 * BF16 * config.intermediate_size  # gate, its SiLU, up, and their product
    return 2 * _norm_bytes(config) + attention + mask + feed_forward


def activation_bytes(config: ModelConfig, tokens: int, window: int, *, checkpointing: bool) -> int:
    """What a pass over `tokens` in rows of `window` keeps for the way back; with checkpointing each layer's state."""
    layer = BF16 * config.hidden_size if checkpointing else layer_bytes(config, window)
    return tokens * (config.layers * layer + _norm_bytes(config))


def chunk_of(vocabulary: int) -> int:
    """States of which the loss holds logits at once."""
    return max(1, LOGITS // vocabulary)


def logits_bytes(config: ModelConfig, tokens: int) -> int:
    """Of a chunk logits and probabilities in fp32; the head's gradient summed in fp32 and bf16, and the states'."""
    chunk = min(chunk_of(config.vocab_size), tokens) * config.vocab_size * 2 * FP32
    head = config.vocab_size * config.hidden_size * (FP32 + BF16)
    return chunk + head + tokens * config.hidden_size * BF16


def communication_bytes(config: ModelConfig, devices: int) -> int:
    """What is whole beside the shards: the embeddings and the head with their gradients, and some blocks."""
    if devices == 1:
        return 0
    block = block_parameters(config)
    outside = config.parameters - config.layers * block
    # Gradients are whole once in bf16, and a block's once more in fp32, as which they are summed.
    return BF16 * (2 * outside + (GATHERED + 1) * block) + FP32 * block


def moment_numbers(config: ModelConfig, optimizer: OptimizerName) -> int:
    """Two a weight for AdamW; Muon keeps one for the matrices of the blocks and is AdamW for the rest."""
    if optimizer == "adamw":
        return 2 * config.parameters
    matrices = config.layers * (block_parameters(config) - 2 * config.hidden_size)
    return 2 * config.parameters - matrices


def memory(
    config: ModelConfig, *, rows: int, window: int, devices: int = 1, optimizer: OptimizerName = "adamw",
    checkpointing: bool = False,
) -> Memory:  # fmt: skip
    """One device of `devices` that takes `rows` rows of `window` tokens at a time."""
    shard = -(-config.parameters // devices)
    tokens = rows * window
    layer = tokens * layer_bytes(config, window)
    return Memory(
        weights=BF16 * shard,
        masters=FP32 * shard,
        moments=FP32 * -(-moment_numbers(config, optimizer) // devices),
        gradients=BF16 * shard,
        step_gradients=FP32 * shard,
        activations=activation_bytes(config, tokens, window, checkpointing=checkpointing),
        recomputed=layer if checkpointing else 0,
        logits=logits_bytes(config, tokens),
        communication=communication_bytes(config, devices),
        layer=layer,
    )
