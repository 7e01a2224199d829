"""The card of a trained model, `README.md` in its folder: what it is, what it learned from and how, what is not known.

Front matter and parts are those of Hugging Face's model cards (Mitchell et al., 2019). It is made from the run's own
record (`record.py`), so it claims nothing that the run did not write down. Of paths only the end is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codegen25.config import ModelConfig
from codegen25.data.document import write_text
from codegen25.errors import CodegenError
from codegen25.train.runs import Run

CARD = "README.md"
FRONT = "---\nlanguage: [code]\ntags: [code, completion, infilling]\n{base}---\n"
STAGES = {
    "multi": "Code of several languages, whole and with holes.",
    "mono": "Python, whole and with holes, on from an earlier stage.",
    "instruct": "Prompts and responses in the template of `docs/instruct.md`; the responses are learned.",
    "adapt": "Fitted to the files of one repository by low-rank sums (LoRA), merged into the weights.",
}
USE = """\
    codegen25 complete --model FOLDER 'def is_prime(n):'
    codegen25 infill FILE --at LINE --model FOLDER

transformers and vLLM load the folder as it is. A hole is asked for as CodeGen2.5 asks: the text with `<mask_1>` in the
place of the hole, then `<|endoftext|><sep><mask_1>`, and the answer ends with `<eom>`.
"""
USE_INSTRUCT = """\
    codegen25 serve --model FOLDER        # POST /v1/chat/completions {"messages": …}

Other programs prompt it with the template of `docs/instruct.md`, and cut an answer at `### Instruction`. transformers
and vLLM load the folder as it is.
"""
LIMITS = """\
Nothing is known of it but what stands here: `codegen25 eval` measures it on HumanEval and its infilling tasks. Answers
may be wrong, insecure, or repeat code that it learned from word by word, under the licence of that code:
`codegen25 attribute trace` finds such places in the corpus.
"""

Rows = Sequence[tuple[str, str]]


def write_card(folder: Path, run: Run, measured: Rows = ()) -> None:
    """Write the card of the model in `folder`, with `measured` beside what the run's log knows.

    Raises `CodegenError` when the disk refuses.
    """
    try:
        write_text(folder / CARD, [card(run, measured)])
    except OSError as error:
        raise CodegenError(f"{folder / CARD}: cannot be written ({error.strerror}); the model is whole") from error


def card(run: Run, measured: Rows = ()) -> str:
    """The text of the card."""
    settings = run.settings
    start: Mapping[str, Any] = run.starts[-1] if run.starts else {}
    config = ModelConfig(**settings["model"])
    stage, began = str(settings["stage"]), _short(start.get("init", settings.get("init")))
    base = f"base_model: {began}\n" if began else ""
    shape = (
        f"{config.parameters:,} parameters, LLaMA shape ({config.layers} layers, hidden size {config.hidden_size}, "
        f"{config.heads} heads over {config.kv_heads} key/value heads, vocabulary {config.vocab_size:,})."
    )
    found = [*_evaluated(run), *measured]
    parts = [
        f"# {run.name}\n\n{shape} {STAGES.get(stage, '')}".rstrip(),
        "## Use\n\n" + (USE_INSTRUCT if stage == "instruct" else USE),
        "## Training\n\n" + _table(_training(run, start, began)),
        "## Measured\n\n" + (_table(found) if found else "Nothing, beside the loss.\n"),
        "## Limits\n\n" + LIMITS,
    ]
    return FRONT.format(base=base) + "\n".join(part.rstrip() + "\n" for part in parts)


def _training(run: Run, start: Mapping[str, Any], began: str) -> Rows:
    settings, train, data = run.settings, run.settings["train"], run.settings["data"]
    last, loss = run.last, run.loss
    machine = start.get("environment", {})
    name, documents, digest = Path(str(start.get("data", "?"))).name, data["documents"], data["sha256"]
    slopes = f"{train['warmup']} steps of warm-up, {train['decay']} of decay"
    for_bits = f", trained for and written in {settings['bits']} bits" if settings.get("bits") else ""
    versions = f"codegen25 {machine.get('codegen25', '?')}, PyTorch {machine.get('torch', '?')}"
    rows = [
        ("stage", str(settings["stage"])),
        ("begins from", began or f"chance, the shape {start.get('shape', '?')}"),
        ("data", f"{name}: {documents:,} documents, SHA-256 `{digest}`"),
        ("learned", f"{last.get('tokens', 0):,} tokens in {last.get('step', 0):,} of {train['steps']:,} steps"),
        ("loss at the end", "-" if loss is None else f"{loss:.3f} nats a token, smoothed"),
        (
            "optimizer",
            f"{train['optimizer']}, rate {train['rate']:g}, {slopes}, weight decay {train['weight_decay']:g}",
        ),
        ("batch", f"{data['documents_per_step']} documents a step, rows of {data['window']} tokens"),
        ("precision", f"{settings.get('dtype', '?')}, masters in float32{for_bits}"),
        ("with", f"{versions}, {machine.get('gpu') or machine.get('cpu', '?')}, {str(start.get('time', ''))[:10]}"),
    ]
    objective = settings.get("objective")
    if objective:
        shares = ", ".join(f"{name} {share:g}" for name, share in objective["mixture"].items())
        rows.insert(4, ("objective", f"{objective['infill_rate']:.0%} of documents with holes: {shares}"))
    return rows


def _short(init: str | None) -> str:
    """A hub id as it is, and of a path the end."""
    return "/".join(Path(init).parts[-2:]).lstrip("/") if init else ""


def _evaluated(run: Run) -> Rows:
    """The numbers that were measured last, on held-out documents."""
    return [(name.replace(".", " ").replace("_", " "), f"{one:.4g}") for name, one in run.newest().items()]


def _table(rows: Rows) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {one.replace('|', '/')} |\n" for name, one in rows)
