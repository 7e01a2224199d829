"""Whether what we export is what we run: other programs' token ids on many lines, and their greedy text.

A model is exported as a Hugging Face folder in bf16, and that as an F16 GGUF file, so that all read the same weights.
Our ids are compared with llama.cpp's and transformers'; our greedy text (PyTorch in bf16) with that of both. Arithmetic
in 16 bits differs in its last places: where two texts part, the two tokens are compared in fp32, and a pair whose
log-probabilities are within `TIE` is a tie.
"""

from __future__ import annotations

import http.client
import json
import random
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.llama_server import LlamaServer
from codegen25.bench.peer import Peer, PeerError
from codegen25.bench.vllm_server import VllmServer
from codegen25.complete import load
from codegen25.engine.backend import Backend
from codegen25.engine.sampling import log_softmax
from codegen25.errors import CodegenError
from codegen25.files import read_source
from codegen25.model.export import export_hf
from codegen25.model.folder import resolve
from codegen25.model.gguf_export import export_gguf
from codegen25.tokenizer import Tokenizer

TIE = 0.1  # nats: about what logits of 20 or so are rounded by in bf16
LONGEST = 400  # characters of a prompt
HOSTILE = 10  # of so many lines, one is made of what tokenizers get wrong
PIECES = (
    " ", "  ", "   ", "\t", "\t\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u200b", "\u2028", "\u0085", "\x0b",
    "\x0c", "\x1c", "\ufeff", "\ufffd", "'s", "'S", "'ll", "'", "\u2019s", "1", "\u00b2", "\u0663", "\u2167", "\u4e00",
    "é", "e\u0301", "ñ", "ß", "İ", "ǅ", "Ω", "\u1e9e", "π", "🦊", "👩\u200d💻", "🇩🇪", "\U00010348", "\u0e01", "\u0915",
    "\u094d", "\u202e", "_", "__", "x", "Word", "<|endoftext|>", "<mask_1>", "<eom>", "<sep>", "[UNUSED_1]", "#", "//",
    "/*", '"', "->", "{}", "\\n", "%",
)  # fmt: skip


def lines(count: int) -> list[str]:
    """Lines of the standard library with their ends, and among them lines of `PIECES` in any order; always the same."""
    rng = random.Random(0)
    found: list[str] = []
    for path in sources():
        found += [line for line in read_source(path).text.splitlines(keepends=True) if line.strip()]
    taken = rng.sample(found, min(len(found), count - count // HOSTILE))
    return taken + ["".join(rng.choices(PIECES, k=rng.randint(1, 24))) for _ in range(count - len(taken))]


def sources() -> Iterator[Path]:
    """Modules of the standard library, in the order of their names."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(folder.glob("*.py")):
        try:
            read_source(path)
        except CodegenError:  # some are kept in other encodings
            continue
        yield path


def prompts(count: int) -> list[str]:
    """Beginnings of modules and of what is inside them, each cut at the end of a line."""
    rng = random.Random(1)
    found = []
    for path in rng.sample(list(sources()), count):
        text = read_source(path).text
        start = rng.choice([0, *(at for at in range(len(text)) if text.startswith("\ndef ", at))])
        piece = text[start : start + LONGEST].strip("\n")
        found.append((piece[: piece.rfind("\n")] if "\n" in piece else piece).rstrip("\n"))
    return found


@dataclass(frozen=True)
class Parting:
    """Where two greedy texts part: which prompt, after how many tokens, and by how many nats ours is the likelier."""

    prompt: int
    after: int
    margin: float


@contextmanager
def exported(model: str, options: Options) -> Iterator[tuple[Path, Path]]:
    """The Hugging Face folder and the GGUF file, for as long as they are needed."""
    options.cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.cache) as place:
        folder, file = Path(place) / "hf", Path(place) / "model.gguf"
        options.say(f"exporting {model}")
        export_hf(resolve(model), folder, options.say)
        export_gguf(folder, file, options.say, "f16")
        yield folder, file


class Server:
    """llama.cpp's server, asked one thing after the other."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        self._connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=600)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
        if answer.status != 200:
            raise PeerError(f"llama.cpp's server answered {answer.status}: {said}")
        return said

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        ask = {"add_special": False, "parse_special": False}
        return [self._post("/tokenize", {"content": text} | ask)["tokens"] for text in texts]

    def greedy(self, prompt: Sequence[int], n: int) -> list[int]:
        ask = {"prompt": list(prompt), "n_predict": n, "temperature": 0.0, "samplers": ["temperature"]}
        tokens: list[int] = self._post("/completion", ask | {"return_tokens": True, "cache_prompt": False})["tokens"]
        return tokens


def greedy(backend: Backend, prompt: Sequence[int], n: int, end: int) -> list[int]:
    """The likeliest token `n` times, or until `end`, which is not among them."""
    sequence, new, out = backend.new(), list(prompt), list[int]()
    try:
        while len(out) < n:
            (logits,) = backend.forward([(sequence, new, False)])
            new = [int(logits[0].argmax())]
            if new[0] == end:
                break
            out += new
        return out
    finally:
        backend.free(sequence)


def parting(
    exact: Backend, prompt: Sequence[int], number: int, ours: list[int], theirs: list[int], end: int
) -> Parting | None:
    """Where their tokens leave ours; `exact` is the model in fp32."""
    if ours == theirs:
        return None
    pairs = zip([*ours, end], [*theirs, end], strict=False)
    after = next(i for i, (one, other) in enumerate(pairs) if one != other)
    mine, other = ([*tokens, end][after] for tokens in (ours, theirs))
    sequence = exact.new()
    try:
        (logits,) = exact.forward([(sequence, [*prompt, *ours[:after]], False)])
    finally:
        exact.free(sequence)
    logprobs = log_softmax(logits[0])
    return Parting(number, after, float(logprobs[mine] - logprobs[other]))


def run(
    options: Options, model: str, line_count: int, prompt_count: int, tokens: int, vllm: Path | None = None
) -> Iterator[Figure]:
    """Figures that hold when all lines have our ids, and all texts are ours but for ties.

    `vllm`: the program, which serves the folder too. It reads control strings in text as control tokens, so there the
    ids of the prompts alone are compared. Both run in float32 then: in bfloat16 it rounds by far more than a tie
    (`docs/log.md`).
    """
    texts, asked = lines(line_count), prompts(prompt_count)
    with exported(model, options) as (folder, file):
        ours = load(str(folder), dtype="bfloat16", notice=options.say)
        exact = load(str(folder), dtype="float32", notice=options.say).backend
        end = ours.tokenizer.eot
        ids = [ours.tokenizer.encode(prompt) for prompt in asked]
        options.say("our own texts")
        written = [greedy(ours.backend, prompt, tokens, end) for prompt in ids]

        def compare(
            name: str, encode: Encode, continue_: Callable[[list[int]], list[int]],
            texts: Sequence[str] = texts, written: Sequence[list[int]] = written,
        ) -> Iterator[Figure]:  # fmt: skip
            options.say(f"{name}: ids of {len(texts)} lines")
            yield _ids(name, ours.tokenizer, texts, encode(texts))
            options.say(f"{name}: {len(ids)} texts")
            theirs = [_until(end, continue_(prompt)) for prompt in ids]
            found = [
                parting(exact, prompt, number, mine, other, end)
                for number, (prompt, mine, other) in enumerate(zip(ids, written, theirs, strict=True))
            ]
            yield _texts(name, [one for one in found if one], len(ids), tokens)

        with LlamaServer(options, file, window=2048, reuse=0) as running:
            server = Server(running.address)
            yield from compare("llama.cpp F16", server.encode, lambda prompt: server.greedy(prompt, tokens))
        with Peer.start("hf-folder", options) as peer:
            peer.call("load", path=str(folder), threads=options.threads, dtype="bfloat16")
            yield from compare(
                "transformers bf16",
                lambda texts: peer.call("encode", texts=list(texts))["ids"],
                lambda prompt: peer.call("greedy", prompt=prompt, n=tokens, end=end)["tokens"],
            )
        if vllm:
            options.say("starting vLLM")
            exactly = [greedy(exact, prompt, tokens, end) for prompt in ids]
            with VllmServer(vllm, folder, options, window=2048, dtype="float32") as vllm_server:
                yield from compare(
                    "vLLM float32",
                    vllm_server.encode,
                    lambda prompt: vllm_server.greedy(prompt, tokens),
                    asked,
                    exactly,
                )


Encode = Callable[[Sequence[str]], list[list[int]]]


def _until(end: int, tokens: list[int]) -> list[int]:
    """Some list the token that ends a text, some do not."""
    return tokens[: tokens.index(end)] if end in tokens else tokens


def _ids(name: str, tokenizer: Tokenizer, texts: Sequence[str], theirs: Sequence[list[int]]) -> Figure:
    wrong = [text for text, other in zip(texts, theirs, strict=True) if tokenizer.encode(text) != other]
    note = f"the first that differs is {wrong[0]!r}" if wrong else ""
    equal = len(texts) - len(wrong)
    return Figure("token ids of lines", "lines", [equal], [len(texts)], name, Bar(">=", 1), note)


def _texts(name: str, partings: Sequence[Parting], count: int, tokens: int) -> Figure:
    ties = [one for one in partings if abs(one.margin) <= TIE]
    note = f"{tokens} tokens each; {count - len(partings)} equal to the end"
    if partings:
        said = ", ".join(f"{one.prompt} after {one.after} ({one.margin:+.3f})" for one in partings)
        note += f"; {len(ties)} part at a tie of at most {TIE} nats: {said}"
    equal = count - len(partings) + len(ties)
    more = {"partings": [vars(one) for one in partings]}
    return Figure("greedy texts", "texts", [equal], [count], name, Bar(">=", 1), note, more)
