"""The texts that are learned: from a finished corpus, which may be larger than memory, or from a JSONL file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from codegen25.errors import CodegenError, needs_extra
from codegen25.tokenizer import Tokenizer

if TYPE_CHECKING:
    from codegen25.data.shards import Shard

# Shards that are open at a time: each takes a file handle.
OPEN_SHARDS = 64
# About how many bytes of code a token has, where nobody has counted.
BYTES_PER_TOKEN = 3


class Entry(NamedTuple):
    """One text. `head` are ids that stand before it and are never cut into: what a corpus says of the document.

    A document that has a structure of its own, such as an issue, is all head: its ids, and no text.
    """

    text: str
    language: str = ""
    head: tuple[int, ...] = ()


class Texts(Protocol):
    """Texts by number, from 0."""

    @property
    def sizes(self) -> Sequence[int] | npt.NDArray[np.int64]:
        """How many ids each text has, about."""
        ...

    def entry(self, number: int) -> Entry: ...

    def language(self, number: int) -> str:
        """That of the entry, known without reading it."""
        ...

    def fingerprint(self) -> str:
        """A SHA-256, in hexadecimal, that differs when a text or their order does."""
        ...


class ListedTexts:
    """Texts in memory."""

    def __init__(self, texts: Sequence[str], languages: Sequence[str] | None = None) -> None:
        """`languages` are those of the texts, one each."""
        self._texts, self._languages = texts, languages
        self.sizes: Sequence[int] = [len(text.encode()) // BYTES_PER_TOKEN + 1 for text in texts]

    def __len__(self) -> int:
        return len(self._texts)

    def entry(self, number: int) -> Entry:
        return Entry(self._texts[number], self.language(number))

    def language(self, number: int) -> str:
        return self._languages[number] if self._languages else ""

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for text in self._texts:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


class CorpusTexts:
    """The documents of a split of a finished corpus, read where they lie: memory holds some bytes for each."""

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, split: str = "train", languages: Collection[str] = ()
    ) -> None:
        """`languages` are the corpus's names of those wanted; all, when empty.

        Raises CodegenError when the folder is no finished corpus, a shard is not whole, it was built with another
        vocabulary than the tokenizer's, or nothing is left to learn from.
        """
        with needs_extra("data", "a corpus"):
            from codegen25.data.corpus import Corpus
        from codegen25.model.vocabulary import vocabulary_of

        self._corpus, self._tokenizer, self._split = Corpus(folder), tokenizer, split
        self._wanted = sorted(languages)
        if self._corpus.vocabulary != vocabulary_of(tokenizer).hash:
            raise CodegenError(
                f"{folder}: built with another vocabulary than the model's; build it again with --tokenizer MODEL, or "
                "train on what `codegen25 data export` writes"
            )
        if split not in self._corpus.splits:
            raise CodegenError(f"{folder}: has no split {split}; it has {', '.join(self._corpus.splits)}")
        self._read_tables()
        if not len(self):
            what = f" in {', '.join(self._wanted)}" if self._wanted else ""
            raise CodegenError(f"{folder}: its split {split} holds no documents{what}; build a larger corpus")

    def _read_tables(self) -> None:
        """Where each wanted document lies, and what is needed of it to choose."""
        self._paths: list[Path] = []
        shards, places, sizes, languages, kinds = [], [], [], [], []
        for number, shard in enumerate(shard for split, shard in self._corpus.all_shards() if split == self._split):
            table = shard.documents.read(["language", "kind"])
            language = np.asarray(table["language"].to_pylist(), dtype=str)
            wanted = np.isin(language, self._wanted) if self._wanted else np.ones(len(language), bool)
            at = np.flatnonzero(wanted)
            self._paths.append(shard.path)
            shards.append(np.full(len(at), number, np.int32))
            places.append(at.astype(np.int32))
            sizes.append(np.diff(shard.ends.astype(np.int64), prepend=0)[at])
            languages.append(language[at])
            kinds.append(np.asarray(table["kind"].to_pylist(), dtype=str)[at] == "code")
        self._shards, self._places = _joined(shards, np.int32), _joined(places, np.int32)
        self.sizes: npt.NDArray[np.int64] = _joined(sizes, np.int64)
        self._is_code = _joined(kinds, np.bool_)
        self._names, self._language = np.unique(_joined(languages, np.str_), return_inverse=True)
        self._shard = lru_cache(OPEN_SHARDS)(self._open)

    def _open(self, number: int) -> Shard:
        from codegen25.data.shards import Shard

        return Shard(self._paths[number], self._corpus.vocabulary)

    def __len__(self) -> int:
        return len(self._places)

    def language(self, number: int) -> str:
        return str(self._names[self._language[number]])

    @cached_property
    def _control(self) -> npt.NDArray[np.int64]:
        return np.array(sorted(self._tokenizer.control.values()))

    def entry(self, number: int) -> Entry:
        ids = self._shard(int(self._shards[number])).document_ids(int(self._places[number]))
        language = self.language(number)
        if not self._is_code[number]:
            return Entry("", language, tuple(ids.tolist()))
        ids = ids[:-1]  # the objective says where a document ends
        head = self._head(ids)
        return Entry(self._tokenizer.decode(ids[head:].tolist()), language, tuple(ids[:head].tolist()))

    def _head(self, ids: npt.NDArray[np.uint16]) -> int:
        """How many ids stand before the text: control tokens, and the words behind them up to a line's end."""
        found = np.flatnonzero(np.isin(ids, self._control))
        if not len(found):
            return 0
        end = int(found[-1]) + 1
        while end < len(ids) and not self._tokenizer.token_bytes(int(ids[end])).endswith(b"\n"):
            end += 1
        return min(end + 1, len(ids))

    def fingerprint(self) -> str:
        what = json.dumps([self._corpus.fingerprint, self._split, self._wanted])
        return hashlib.sha256(what.encode()).hexdigest()


def _joined(parts: list[Any], dtype: Any) -> Any:
    return np.concatenate(parts) if parts else np.empty(0, dtype)


def read_texts(path: Path) -> ListedTexts:
    """The `content` of every line of a JSONL file, and its `language` where it has one.

    Raises `CodegenError` naming the line that has no content.
    """
    if not path.is_file():
        raise CodegenError(f"{path}: no such file; write it with `codegen25 data export`")
    texts, languages = [], []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                content, language = _content(json.loads(line.decode()))
            except (ValueError, KeyError, TypeError) as error:
                raise CodegenError(
                    f"{path}:{number}: not a JSON object with a text as `content`; build the file again"
                ) from error
            texts.append(content)
            languages.append(language)
    if not texts:
        raise CodegenError(f"{path}: holds no documents; build it again")
    return ListedTexts(texts, languages)


def _content(document: object) -> tuple[str, str]:
    if not isinstance(document, dict) or not isinstance(document["content"], str):
        raise TypeError
    content: str = document["content"]
    content.encode()  # a lone surrogate is no text
    language = document.get("language")
    return content, language if isinstance(language, str) else ""
