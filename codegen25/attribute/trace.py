"""Tracing: the spans of a text that stand in the corpus, and where each comes from.

Verbatim spans are maximal runs of the index's tokens, carried on byte by byte at both ends, where tokens depend on
where a text was cut. With a normalised index, spans are found too that were reformatted or had names replaced. A span
is judged by its whole lexemes, not by tokens: see `Rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from codegen25.attribute import normalized
from codegen25.attribute.build import left_out
from codegen25.attribute.index import Index, IndexedShard, check_vocabulary
from codegen25.attribute.origins import Describer, Origin
from codegen25.attribute.search import Searchable, maximal
from codegen25.attribute.suffixes import Ids
from codegen25.data.lexemes import Lexemes, Stream
from codegen25.errors import CodegenError, UsageError
from codegen25.tokenizer import Tokenizer

# More is no source file; a dump named by mistake is refused.
MOST_BYTES = 4 << 20
# Occurrences that are looked at: to count sources; to carry a span on at its ends; to compare names.
MOST_LOCATED, MOST_CARRIED, MOST_COMPARED = 4096, 32, 24
# Bytes that a span may be carried on by: more than any piece of text that becomes tokens as one.
_REACH = 16
MOST_ORIGINS = 5


@dataclass(frozen=True)
class Rule:
    """Which spans count as taken from somewhere. Common ones are told, but attributed to nobody.

    A span has to have `lexemes` whole ones, `distinct` of them different, which lists of numbers and ruled lines have
    not. One that stands in more than `sources` sources is common: it is everybody's.
    """

    lexemes: int = 40
    distinct: int = 16
    normalized_lexemes: int = 60
    sources: int = 5


@dataclass(frozen=True)
class Match:
    """Characters `start` to `end` of the text; `count` is how often their whole tokens stand in the corpus.

    `sources` are the names of all, or, where there are many thousand places, of a sample of them. `origins` are
    documents, the oldest of each source, of some sources. Of a normalised match `count` is of the places compared.
    """

    start: int
    end: int
    kind: Literal["verbatim", "normalized"]
    lexemes: int
    count: int
    sources: tuple[str, ...]
    common: bool
    origins: tuple[Origin, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Place:
    """Where a span stands: ids or lexemes `start` to `end` of a document."""

    shard: IndexedShard
    document: int
    start: int
    end: int


class _Words:
    """The lexemes of a text, to count those within bytes of it; one that repeats the one before it does not count."""

    def __init__(self, text: str) -> None:
        everything = Lexemes(text).all
        changes = np.ones(len(everything), np.bool_)
        changes[1:] = everything.hashes[1:] != everything.hashes[:-1]
        found = everything.take(changes)
        self.room = (len(found.data) - len(text.encode())) // 2
        self.starts, self.ends = found.starts - self.room, found.starts - self.room + found.lengths
        self.hashes = found.hashes

    def within(self, start: int, end: int) -> slice:
        """The lexemes that lie in the bytes as a whole."""
        return slice(int(np.searchsorted(self.starts, start)), int(np.searchsorted(self.ends, end, side="right")))


class Tracer:
    """Traces texts in an index."""

    def __init__(self, index: Index, tokenizer: Tokenizer, rule: Rule | None = None) -> None:
        """Raises CodegenError when the index is of another vocabulary than the tokenizer's."""
        check_vocabulary(index.folder, index.vocabulary, tokenizer)
        self.index, self.tokenizer, self.rule = index, tokenizer, rule or Rule()
        self.left_out = left_out(tokenizer)
        self.lengths = np.zeros(1 << 16, np.int64)
        for id in tokenizer.tokens_starting_with(b""):
            self.lengths[id] = len(tokenizer.token_bytes(id))
        self._describer = Describer(tokenizer)
        self._stream = lru_cache(maxsize=256)(self._document_stream)

    def trace(self, text: str) -> list[Match]:
        """The matches in a text, by where they begin; none lies inside another of its kind.

        Raises UsageError for an empty text, and CodegenError for one of more than `MOST_BYTES` bytes.
        """
        size = len(text.encode(errors="surrogatepass"))
        if not size:
            raise UsageError("nothing to trace, the text is empty; name a file, or give it on standard input")
        if size > MOST_BYTES:
            raise CodegenError(f"the text has {size:,} bytes, over {MOST_BYTES:,}; trace its files one by one")
        found = list(self._verbatim(text))
        if self.index.normalized:
            found += [one for one in self._normalized(text) if not _covered(one, found)]
        return sorted(found, key=lambda match: (match.start, match.end))

    # -------------------------------------------------------------------------------------------------- verbatim

    def _verbatim(self, text: str) -> Iterator[Match]:
        ids = np.array(self.tokenizer.encode(text), np.uint16)
        offsets = np.concatenate([[0], np.cumsum(self.lengths[ids])])
        starts = np.flatnonzero(~self.left_out[ids]).astype(np.uint32)
        words, data = _Words(text), text.encode()
        shards = [shard.tokens for shard in self.index.shards]
        reached = -1
        # A token holds few lexemes but for ruled lines, which are no match anyway.
        for first, last in maximal(shards, ids, starts, max(1, self.rule.lexemes // 4)):
            start = begin = int(offsets[first])
            end = int(offsets[last])
            if not self._tells(words, start - _REACH, end + _REACH, self.rule.lexemes):
                continue
            places, count = self._places([shard.tokens for shard in self.index.shards], ids[first:last])
            start, end = self._carried(data, start, end, places)
            inside = words.within(start, end)
            if not self._tells(words, start, end, self.rule.lexemes) or int(words.ends[inside.stop - 1]) <= reached:
                continue
            reached = int(words.ends[inside.stop - 1])
            start = int(words.starts[inside.start])
            # From the first token, whose line is known, to the first lexeme: it may stand on either side.
            down = data.count(b"\n", begin, start) - data.count(b"\n", start, begin)
            lines = partial(self._lines, down, data.count(b"\n", start, reached))
            yield self._match(data, (start, reached), "verbatim", inside.stop - inside.start, count, places, lines)

    def _tells(self, words: _Words, start: int, end: int, least: int) -> bool:
        """Whether there are enough lexemes in the bytes, and enough different ones."""
        inside = words.within(start, end)
        if inside.stop - inside.start < least:
            return False
        return len(set(words.hashes[inside].tolist())) >= self.rule.distinct

    def _places(self, searchables: list[Searchable], query: Ids) -> tuple[list[_Place], int]:
        """Some places where a query stands, spread over all of them, and how many there are."""
        places: list[_Place] = []
        intervals = [one.interval(query) for one in searchables]
        count = sum(last - first for first, last in intervals)
        step = max(1, count // MOST_LOCATED)
        for shard, one, (first, last) in zip(self.index.shards, searchables, intervals, strict=True):
            documents, at = one.locate(np.arange(first, last, step))
            begins = np.concatenate([np.zeros(1, np.uint64), one.ends])[documents].astype(np.int64)
            for document, start in zip(documents.tolist(), (at - begins).tolist(), strict=True):
                places.append(_Place(shard, document, start, start + query.size))
        return places, count

    def _carried(self, data: bytes, start: int, end: int, places: list[_Place]) -> tuple[int, int]:
        """The span carried on by bytes that some place has in common with the text, less words it breaks off in."""
        best = start, end
        for place in places[:MOST_CARRIED]:
            ids = place.shard.shard.document_ids(place.document)
            before = self.tokenizer.decode_bytes(ids[max(0, place.start - _REACH) : place.start].tolist())[-_REACH:]
            after = self.tokenizer.decode_bytes(ids[place.end : min(place.end + _REACH, ids.size - 1)].tolist())[
                :_REACH
            ]
            ours_before, ours_after = data[max(0, start - _REACH) : start], data[end : end + _REACH]
            left = _common(before[::-1], ours_before[::-1])
            right = _common(after, ours_after)
            one = start - left, end + right
            # A word that goes on in the corpus and ends in the text is not the same word.
            if left < len(before) and _in_word(before[-left - 1]) and _in_word(data[one[0]]):
                one = _next_word(data, one[0]), one[1]
            if right < len(after) and _in_word(after[right]) and _in_word(data[one[1] - 1]):
                one = one[0], _last_word(data, one[1])
            if place is places[0] or one[1] - one[0] > best[1] - best[0]:
                best = one
        return best

    # ------------------------------------------------------------------------------------------------ normalised

    def _normalized(self, text: str) -> Iterator[Match]:
        ours = normalized.stream(text)
        query = normalized.symbols(ours)
        searchables = [shard.lexemes for shard in self.index.shards if shard.lexemes is not None]
        least = self.rule.normalized_lexemes
        room = (len(ours.data) - len(text.encode())) // 2
        reached = 0
        for first, last in maximal(searchables, query, np.arange(query.size, dtype=np.uint32), least):
            places, _ = self._places(searchables, query[first:last])
            at, length, same = self._renamed(ours, first, last, places[:MOST_COMPARED])
            inside = slice(at, at + length)
            if length < least or at + length <= reached or len(set(ours.hashes[inside].tolist())) < self.rule.distinct:
                continue
            reached = at + length
            start, end = int(ours.starts[at]) - room, int(ours.starts[reached - 1] + ours.lengths[reached - 1]) - room
            yield self._match(text.encode(), (start, end), "normalized", length, len(same), same, self._stream_lines)

    def _renamed(self, ours: Stream, first: int, last: int, places: list[_Place]) -> tuple[int, int, list[_Place]]:
        """Where the longest run begins that some places have but for names, how long it is, and those places."""
        best: tuple[int, int, list[_Place]] = first, 0, []
        for place in places:
            theirs, at = self._stream(place.shard, place.document), first
            while last - at > best[1] or (last - at == best[1] and at == best[0]):
                its = place.start + at - first
                run = normalized.same_run(ours, at, theirs, its, last - at)
                here = _Place(place.shard, place.document, its, its + run)
                if run > best[1]:
                    best = at, run, [here]
                elif (at, run) == best[:2]:
                    best[2].append(here)
                at += run + 1
        return best

    def _document_stream(self, shard: IndexedShard, document: int) -> Stream:
        return normalized.stream(shard.text(document))

    # --------------------------------------------------------------------------------------------------- matches

    def _match(
        self, data: bytes, span: tuple[int, int], kind: Literal["verbatim", "normalized"], lexemes: int, count: int,
        places: list[_Place], lines: Callable[[_Place], tuple[int, int]],
    ) -> Match:  # fmt: skip
        by_source: dict[str, _Place] = {}
        for place in places:
            source = place.shard.origins["source"][place.document]
            if source not in by_source or _date(place) < _date(by_source[source]):
                by_source[source] = place
        sources = sorted(by_source, key=lambda source: (_date(by_source[source]), source))
        named = [by_source[source] for source in sources[:MOST_ORIGINS]]
        origins = tuple(self._describer.origin(one.shard, one.document, *lines(one)) for one in named)
        start, end = (len(data[:at].decode(errors="ignore")) for at in span)
        return Match(start, end, kind, lexemes, count, tuple(sources), len(sources) > self.rule.sources, origins)

    def _lines(self, down: int, more: int, place: _Place) -> tuple[int, int]:
        """The first and the last line of a match that begins `down` lines below its first token."""
        first = self._describer.line(place.shard, place.document, place.start) + down
        return first, first + more

    def _stream_lines(self, place: _Place) -> tuple[int, int]:
        theirs = self._stream(place.shard, place.document)
        return theirs.line(place.start), theirs.line(place.end - 1)


def _date(place: _Place) -> str:
    """For sorting: the oldest first, unknown dates last."""
    return place.shard.origins["date"][place.document] or "9999"


def _covered(match: Match, others: list[Match]) -> bool:
    """Whether most of a match is in one of the others."""
    return any(
        2 * (min(match.end, other.end) - max(match.start, other.start)) > match.end - match.start for other in others
    )


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _in_word(byte: int) -> bool:
    return chr(byte).isalnum() or byte == ord("_") or byte >= 0x80


def _next_word(data: bytes, at: int) -> int:
    while at < len(data) and _in_word(data[at]):
        at += 1
    return at


def _last_word(data: bytes, at: int) -> int:
    while at > 0 and _in_word(data[at - 1]):
        at -= 1
    return at
