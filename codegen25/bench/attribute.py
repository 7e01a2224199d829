"""Attribution on a corpus: how fast a text is traced, how rightly, and what an index costs.

The index holds the corpus's split `train`; fresh texts come from its split `heldout`, packages that are kept apart.
Where a bar is a number and no other engine, the peer is that number.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from codegen25.attribute.build import build_index
from codegen25.attribute.index import Index
from codegen25.attribute.policy import Policy, PolicyGuard
from codegen25.attribute.search import Searchable, maximal
from codegen25.attribute.suffixes import Ids, sort_suffixes
from codegen25.attribute.trace import Tracer
from codegen25.bench import excerpts
from codegen25.bench.figures import Bar, Figure, Options
from codegen25.bench.overfitted import Overfitted
from codegen25.bench.peer import Peer, PeerError
from codegen25.complete import Model, load
from codegen25.data.corpus import Corpus
from codegen25.data.document import Document
from codegen25.data.engine import Engine
from codegen25.data.policy import Policy as Licences
from codegen25.errors import CodegenError
from codegen25.tokenizer import family

INFINI_GRAM = "infini-gram"
TOKENS = 512
TEXTS = 200
# Tokens of the smallest corpus whose growth is measured; a copy of it differs in one token of so many.
GROWTH_TOKENS, GROWTH_CHANGES = 1 << 20, 50
# Spans of fewer tokens are nobody's, for the peer as for us.
LEAST = 10
# Answers that the policy watches, and seconds of decoding a token that its cost is compared with.
WATCHED = 50
# Prompts that are to provoke an excerpt from a model that knows it by heart.
PROVOKED = 200
AT_MOST = Bar("<=", 1.0)


def run(options: Options, *, folder: Path, count: int, seed: int) -> Iterator[Figure]:
    """All figures. Raises CodegenError when the corpus lacks a split."""
    corpus, tokenizer = Corpus(folder), family()
    for split in ("train", "heldout"):
        if split not in corpus.splits:
            raise CodegenError(f"{folder}: has no split {split}; build it with sources that are held out")
    out = options.cache / "attribution" / corpus.fingerprint[:16]
    options.say(f"indexing {folder} in {out}")
    built = build_index(
        corpus, out, tokenizer, Engine("native", options.threads), splits=("train",), normalized=True
    )  # fmt: skip
    tracer = Tracer(Index.open(out), tokenizer)
    draw = random.Random(seed)
    fresh = [d for d in corpus.documents("heldout") if d.kind == "code"]
    texts = excerpts.token_texts(fresh, tokenizer, TOKENS, TEXTS, draw)
    note = f"{built.tokens:,} tokens in {built.shards} shards"
    yield _limit("bytes per token, with the shards", "", [built.to_json()["bytes_per_token"]], 6.0, note)
    yield _build_speed(corpus, tracer)
    yield from _latency(tracer, texts, options)
    yield from _growth(tracer, texts, draw)
    yield from _planted(tracer, corpus, count, draw)
    yield _false(tracer, fresh, count, draw)
    yield from _watched(tracer, texts)
    yield from _provoked(tracer, corpus, draw)
    if INFINI_GRAM in options.peers:
        yield from _beside_infini_gram(tracer, texts, options)


def _limit(name: str, unit: str, ours: Sequence[float], most: float, note: str = "") -> Figure:
    return Figure(name, unit, ours, [most], "the bar", AT_MOST, note)


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def _build_speed(corpus: Corpus, tracer: Tracer) -> Figure:
    """One shard, sorted in this process: text a second of one core."""
    entry = min(corpus.manifest["splits"]["train"], key=lambda one: int(one["tokens"]))
    shard = next(s.shard for s in tracer.index.shards if s.shard.path.stem == entry["name"])
    start = time.process_time()
    sort_suffixes(np.array(shard.ids), tracer.left_out)
    rate = entry["bytes"] / 1e6 / (time.process_time() - start)
    return Figure("suffixes sorted, of text", "MB/s", [rate], [2.0], "the bar", Bar(">=", 1.0), "a core's own seconds")


def _latency(tracer: Tracer, texts: Sequence[str], options: Options) -> Iterator[Figure]:
    for text in texts:
        tracer.trace(text)  # what is mapped is read once
    walls, cores = [], []
    for _ in range(options.rounds):
        taken = [_timed(partial(tracer.trace, text)) for text in texts]
        walls.append(_percentile([1e3 * wall for wall, _ in taken], 0.95))
        cores.append(_percentile([1e3 * core for _, core in taken], 0.95))
    kinds = "verbatim and normalised" if tracer.index.normalized else "verbatim"
    note = f"{len(texts)} texts that are not in it, {kinds}"
    yield _limit(f"trace of {TOKENS} tokens, 95th percentile", "ms", walls, 10.0, note)
    yield Figure("the same, seconds of the core alone", "ms", cores, [], "")


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    wall, core = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - core


def _growth(tracer: Tracer, texts: Sequence[str], draw: random.Random) -> Iterator[Figure]:
    """The search alone, in one shard of 1, 4 and 16 times the tokens."""
    queries = [np.array(tracer.tokenizer.encode(text), np.uint16) for text in texts]
    base = np.array(tracer.index.shards[0].shard.ids[:GROWTH_TOKENS])
    seconds = {}
    for times in (1, 4, 16):
        shard = _repeated(base, times, draw.randrange(1 << 30), tracer.left_out)
        for _ in range(2):  # the first time fills caches
            taken = [_timed(partial(_spans, [shard], query, tracer.left_out))[1] for query in queries]
        seconds[times] = sum(taken)
    steps = math.log2(16 * GROWTH_TOKENS) / math.log2(GROWTH_TOKENS)
    each = ", ".join(f"{times}x {1e3 * taken / len(queries):.2f} ms" for times, taken in seconds.items())
    note = f"from {GROWTH_TOKENS:,} tokens on, repeated with changes: {each}; the steps grow {steps:.1f} times"
    # Linear growth were 16 times; twice what the steps say leaves room for memory that no cache holds.
    yield _limit("search in 16 times the tokens", "times", [seconds[16] / seconds[1]], 2 * steps, note)


def _repeated(base: Ids, times: int, seed: int, flags: np.ndarray) -> Searchable:
    chance = np.random.default_rng(seed)
    ids = np.tile(base, times)
    places = chance.integers(0, ids.size, ids.size // GROWTH_CHANGES)
    ids[places] = chance.choice(base, places.size)
    return Searchable(ids, np.array([ids.size], np.uint64), sort_suffixes(ids, flags))


def _spans(shards: list[Searchable], query: Ids, flags: np.ndarray) -> list[tuple[int, int]]:
    return maximal(shards, query, np.flatnonzero(~flags[query]).astype(np.uint32), LEAST)


def _planted(tracer: Tracer, corpus: Corpus, count: int, draw: random.Random) -> Iterator[Figure]:
    """Excerpts of the corpus in fresh code: how many are found with their source, as they are and changed."""
    plants = excerpts.planted(corpus, tracer, count, draw)
    for name, change, least in (
        ("verbatim", excerpts.verbatim, 1.0),
        ("reformatted", excerpts.reformatted, 0.99),
        ("renamed", excerpts.renamed, 0.9),
    ):
        found = common = 0
        for plant in plants:
            matches = [m for m in tracer.trace(plant.within(change)) if plant.source in m.sources]
            found += bool(matches)
            common += bool(matches) and all(match.common for match in matches)
        note = f"{len(plants)} excerpts of {excerpts.LINES} lines; {common} of the found are common to many sources"
        yield Figure(f"recall, {name}", "", [found / len(plants)], [least], "the bar", Bar(">=", 1.0), note)


def _false(tracer: Tracer, fresh: Sequence[Document], count: int, draw: random.Random) -> Figure:
    snippets = [text for _, text in excerpts.snippets(fresh, count, draw)]
    wrong = sum(any(not match.common for match in tracer.trace(text)) for text in snippets)
    note = f"{wrong} of {len(snippets)} snippets of {excerpts.LINES} lines from packages that are held out"
    return _limit("false attributions", "", [wrong / len(snippets)], 0.01, note)


def _watched(tracer: Tracer, texts: Sequence[str]) -> Iterator[Figure]:
    """What a policy that allows nothing and the trace of the answer cost a token, beside decoding one with nano."""
    policy = Policy(Licences("none", frozenset()))
    tokens, watching, tracing = 0, 0.0, 0.0
    for text in texts[:WATCHED]:
        guard, answer = PolicyGuard(tracer, policy), b""
        for id in tracer.tokenizer.encode(text):
            answer += tracer.tokenizer.token_bytes(id)
            watching += _timed(partial(guard.allows, answer))[1]
            tokens += 1
        tracing += _timed(partial(tracer.trace, text))[1]
    model = load("nano")
    prompt = texts[0][: len(texts[0]) // 2]
    model.complete(prompt, max_tokens=1)
    start, made = time.perf_counter(), model.complete(prompt, max_tokens=64)
    decoding = (time.perf_counter() - start) / max(1, len(made.tokens))
    watched, traced = (1e6 * seconds / tokens for seconds in (watching, tracing))
    note = f"{watched:.0f} µs by the policy and {traced:.0f} by the trace, of {1e3 * decoding:.1f} ms a token; nano"
    share = (watching + tracing) / tokens / decoding
    yield _limit("inline attribution's share of decoding", "", [share], 0.03, note)


def _provoked(tracer: Tracer, corpus: Corpus, draw: random.Random) -> Iterator[Figure]:
    """How many prompts of a model that knows documents by heart bring them back, with a policy against their licences.

    The policy allows nothing, so that every document is one that must not be repeated. What is brought back is told by
    tracing the answers, at the policy's own length.
    """
    plants = excerpts.planted(corpus, tracer, PROVOKED, draw)
    tokenizer, policy = tracer.tokenizer, Policy(Licences("none", frozenset()), tracer.rule.lexemes)
    back = {False: 0, True: 0}
    endings = 0
    for plant in plants:
        ids = tokenizer.encode(plant.text)
        model = Model(Overfitted([ids], tokenizer.n_vocab), tokenizer)
        prompt = plant.text[: plant.text.index("\n") + 1]
        for guarded in back:
            guard = partial(PolicyGuard, tracer, policy) if guarded else None
            answer = model.complete(prompt, max_tokens=len(ids), guard=guard)
            matches = tracer.trace(answer.text) if answer.text else []
            back[guarded] += any(match.kind == "verbatim" for match in matches)
            endings += guarded and answer.finish_reason == "content_filter"
    note = f"{len(plants)} prompts; without the policy {back[False]}; {endings} answers ended with content_filter"
    yield Figure("memorised excerpts given back", "", [back[True]], [back[False]], "no policy", Bar("<=", 0.0), note)


# ------------------------------------------------------------------------------------------------------- infini-gram


def _beside_infini_gram(tracer: Tracer, texts: Sequence[str], options: Options) -> Iterator[Figure]:
    """The spans of both in the smallest shard, and how long they take to find."""
    shard = min(tracer.index.shards, key=lambda one: one.shard.header.tokens)
    queries = [np.array(tracer.tokenizer.encode(text), np.uint16) for text in texts]
    ours = [_spans([shard.tokens], query, tracer.left_out) for query in queries]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        try:
            peer = stack.enter_context(Peer.start(INFINI_GRAM, options))
            options.say(f"writing {shard.shard.path.stem} for {INFINI_GRAM}")
            write_infini_gram(scratch, shard.shard.ids, shard.shard.ends)
            peer.call("load", folder=str(scratch), end=tracer.tokenizer.eot)
            answers = [peer.call("attribute", ids=query.tolist(), least=LEAST) for query in queries]
            theirs = [1e3 * _percentile([one["seconds"] for one in answers], 0.95)]
        except PeerError as error:
            yield Figure("search beside infini-gram", "ms", [], [], INFINI_GRAM, Bar("<=", 0.2), str(error))
            return
    taken = [_timed(partial(_spans, [shard.tokens], query, tracer.left_out))[0] for query in queries]
    note = f"one shard of {shard.shard.header.tokens:,} tokens, {len(queries)} texts, 95th percentile"
    mine = [1e3 * _percentile(taken, 0.95)]
    yield Figure("search beside infini-gram", "ms", mine, theirs, INFINI_GRAM, Bar("<=", 0.2), note)
    same = sum(
        _stripped(answer["spans"], query, tracer.left_out) == found
        for answer, query, found in zip(answers, queries, ours, strict=True)
    )
    note = f"{same} of {len(queries)} texts; blanks at the beginning of its spans are left out"
    yield Figure("the same spans", "", [same / len(queries)], [1.0], INFINI_GRAM, Bar(">=", 1.0), note)


def write_infini_gram(folder: Path, ids: Ids, ends: np.ndarray) -> None:
    """A shard in infini-gram's format: a separator before each document, and places of bytes in the bytes' order."""
    import pydivsufsort

    stream = np.insert(np.array(ids, "<u2"), np.concatenate([[0], ends[:-1]]).astype(np.int64), 0xFFFF)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.uint64) + np.arange(len(ends), dtype=np.uint64)
    places = pydivsufsort.divsufsort(stream.view(np.uint8))
    places = places[places % 2 == 0]
    width = math.ceil(math.log2(stream.nbytes) / 8)
    (folder / "tokenized.0").write_bytes(stream.tobytes())
    (folder / "table.0").write_bytes(places.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes())
    (folder / "offset.0").write_bytes((2 * starts).astype("<u8").tobytes())


def _stripped(spans: Sequence[Sequence[int]], query: Ids, flags: np.ndarray) -> list[tuple[int, int]]:
    """Spans without blanks at their beginnings, none inside another, of `LEAST` ids or more."""
    told = np.append(np.flatnonzero(~flags[query]), query.size)
    stripped = [(int(told[np.searchsorted(told, start)]), end) for start, end in spans]
    found: list[tuple[int, int]] = []
    # Of those that begin together the longest first: the others lie inside it.
    for start, end in sorted(stripped, key=lambda span: (span[0], -span[1])):
        if end - start >= LEAST and (not found or end > found[-1][1]):
            found.append((start, end))
    return found
