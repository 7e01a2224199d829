"""Text to token ids in bulk, for shards: ordinary text only, a batch at a time, by gigatoken.

Control strings inside a text stay text, so nobody's file can end a document or ask for a mask. The one exception are
texts whose kind is not code: the strings that the dataset wrote between their parts are structure, and become ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import gigatoken
import numpy as np
import numpy.typing as npt
import regex  # type: ignore[import-untyped]

from codegen25.data.document import Kind
from codegen25.data.plain import first_line
from codegen25.errors import CodegenError

Ids = npt.NDArray[np.uint16]
Ends = npt.NDArray[np.uint64]

END_OF_TEXT = "<|endoftext|>"
REPONAME, FILENAME, STARS = "<reponame>", "<filename>", "<gh_stars>"
# What StarCoderData writes between the parts of its issues, commits and notebooks.
STRUCTURE = (
    "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>",
    "<jupyter_output>", "<empty_output>", "<commit_before>", "<commit_msg>", "<commit_after>",
    REPONAME, FILENAME, STARS,
)  # fmt: skip
# Ids have 16 bits.
MAX_SIZE = 1 << 16
# gigatoken remembers every word it met. Text of this many characters lets it begin anew, which bounds its memory.
FORGET_AFTER = 1 << 28
_DIGIT = regex.compile(r"(\p{N})")


@dataclass(frozen=True)
class Vocabulary:
    """A `tokenizer.json` and what names it. `from_json` makes one.

    `size` is one more than the largest id, `end` the id of `<|endoftext|>`. `hash` is the SHA-256 of the definition,
    the same however its JSON is laid out; two vocabularies with the same hash give every text the same ids.
    """

    tokenizer_json: str = field(repr=False)
    size: int
    hash: str
    end: int

    @classmethod
    def from_json(cls, tokenizer_json: str) -> Vocabulary:
        """The vocabulary of a `tokenizer.json`.

        Raises CodegenError when it is none, has no `<|endoftext|>`, or more ids than 16 bits can tell apart.
        """
        try:
            spec = json.loads(tokenizer_json)
            control = _control(spec)
            ids = {*control.values(), *spec["model"]["vocab"].values()}
            size, end = max(ids) + 1, control.get(END_OF_TEXT)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CodegenError(f"tokenizer.json: not a valid tokenizer ({error!r}); export it again") from None
        if end is None:
            raise CodegenError(f"tokenizer.json: has no {END_OF_TEXT}; choose a tokenizer that ends documents with it")
        if size > MAX_SIZE:
            raise CodegenError(f"tokenizer.json: {size} ids do not fit in 16 bits; choose a smaller vocabulary")
        canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
        return cls(tokenizer_json, size, hashlib.sha256(canonical.encode()).hexdigest(), end)

    @cached_property
    def control(self) -> dict[str, int]:
        """The ids of control tokens, by name."""
        return _control(json.loads(self.tokenizer_json))

    def control_id(self, name: str) -> int:
        """The id of a control token. Raises CodegenError when there is none of that name."""
        try:
            return self.control[name]
        except KeyError:
            raise CodegenError(f"the vocabulary has no {name}; leave --metadata-prefix out") from None


def _steps(pre_tokenizer: Any) -> list[str]:
    """The kinds of a sequence of pre-tokenizers whose digits stand alone; none of any other."""
    steps = (pre_tokenizer or {}).get("pretokenizers") or []
    return [step["type"] for step in steps] if steps and steps[0].get("individual_digits") else []


def _control(spec: dict[str, Any]) -> dict[str, int]:
    return {token["content"]: token["id"] for token in spec.get("added_tokens") or ()}


class BulkTokenizer:
    """Encodes batches on the calling thread. Ids equal those of tiktoken with no control token allowed."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Raises CodegenError when gigatoken cannot do what the vocabulary asks for."""
        self.vocabulary = vocabulary
        # Without added tokens, gigatoken finds none in the text.
        spec = json.loads(vocabulary.tokenizer_json) | {"added_tokens": []}
        # SmolLM2's kind: every digit by itself, then as GPT-2. gigatoken knows the second, so we do the first.
        self._digits_apart = _steps(spec.get("pre_tokenizer")) == ["Digits", "ByteLevel"]
        if self._digits_apart:
            spec["pre_tokenizer"] = spec["pre_tokenizer"]["pretokenizers"][1]
        self._definition = json.dumps(spec, ensure_ascii=False)
        self._structure = {name: vocabulary.control[name] for name in STRUCTURE if name in vocabulary.control}
        self._pattern = re.compile("(" + "|".join(map(re.escape, self._structure)) + ")") if self._structure else None
        self._begin()

    def _begin(self) -> None:
        try:
            self._backend = gigatoken.Tokenizer.from_json(self._definition)
        except RuntimeError as error:
            raise CodegenError(
                f"tokenizer.json: cannot be used in bulk ({first_line(error)}); choose another tokenizer"
            ) from None
        self._left = FORGET_AFTER

    def encode_batch(self, texts: list[str], kinds: Sequence[Kind] = ()) -> tuple[Ids, Ends]:
        """The ids of all texts in a row, and where each text ends in it; nothing is added between texts.

        `kinds` says what each text is; without it all are code. Returns (ids uint16 (n,), ends uint64 (texts,)).
        """
        if all(kind == "code" for kind in kinds) or self._pattern is None:
            return self._encode(texts)
        pieces: list[str] = []
        owners: list[int] = []
        for number, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
            found = [text] if kind == "code" else self._pattern.split(text)
            pieces += found
            owners += [number] * len(found)
        return self._encode_pieces(pieces, owners, [kind != "code" for kind in kinds])

    def _encode_pieces(self, pieces: list[str], owners: list[int], structured: list[bool]) -> tuple[Ids, Ends]:
        """The ids of texts that come in pieces, those which are a structure's name as its id."""
        control = [self._structure.get(p) if structured[o] else None for p, o in zip(pieces, owners, strict=True)]
        ids, ends = self._encode([p if c is None else "" for p, c in zip(pieces, control, strict=True)])
        places = [place for place, id in enumerate(control) if id is not None]
        lengths = np.diff(ends, prepend=np.uint64(0))
        ids = np.insert(ids, ends[places].astype(np.int64), [id for id in control if id is not None])
        lengths[places] = 1
        last = np.searchsorted(owners, np.arange(len(structured)), side="right") - 1
        return ids.astype(np.uint16), np.cumsum(lengths, dtype=np.uint64)[last]

    def _encode(self, texts: list[str]) -> tuple[Ids, Ends]:
        if not self._digits_apart:
            return self._encode_whole(texts)
        pieces = [_DIGIT.split(text) for text in texts]
        ids, ends = self._encode_whole([piece for some in pieces for piece in some])
        return ids, ends[np.cumsum([len(some) for some in pieces], dtype=np.int64) - 1]

    def _encode_whole(self, texts: list[str]) -> tuple[Ids, Ends]:
        self._left -= sum(map(len, texts))
        if self._left < 0:
            self._begin()
        rows = self._backend.encode_batch(texts, parallel=False).layout
        offsets = np.asarray(rows.offsets.data)
        ids = np.asarray(rows.content.data)[offsets[0] : offsets[-1]]
        return ids.astype(np.uint16), (offsets[1:] - offsets[0]).astype(np.uint64)
