"""Pieces of documents: fresh ones, and planted ones, which may be reformatted or have their names replaced."""

from __future__ import annotations

import io
import keyword
import random
import re
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codegen25.attribute.trace import Tracer
from codegen25.data.corpus import Corpus
from codegen25.data.document import Document
from codegen25.data.lexemes import Lexemes
from codegen25.tokenizer import Tokenizer

# Lines of a piece of a document.
LINES = 20
_BEFORE, _AFTER = "def fresh(given):\n    return given\n\n\n", "\n\nprint(fresh(1))\n"
Change = Callable[[str], str]


@dataclass(frozen=True)
class Plant:
    """A piece of a document of a source."""

    source: str
    text: str

    def within(self, change: Change) -> str:
        """The piece, changed, in code of nobody's."""
        return _BEFORE + change(self.text) + _AFTER


def token_texts(
    documents: Sequence[Document], tokenizer: Tokenizer, tokens: int, count: int, draw: random.Random
) -> list[str]:
    """Texts of so many tokens out of documents that have as many."""
    texts: list[str] = []
    long = [document for document in documents if len(document.content) > 8 * tokens]
    while len(texts) < count and long:
        ids = tokenizer.encode(draw.choice(long).content)
        if len(ids) > tokens:
            at = draw.randrange(len(ids) - tokens)
            texts.append(tokenizer.decode(ids[at : at + tokens]))
    return texts


def snippets(documents: Sequence[Document], count: int, draw: random.Random) -> list[tuple[Document, str]]:
    """Some lines out of each of so many documents, which may come again."""
    found: list[tuple[Document, str]] = []
    long = [document for document in documents if document.content.count("\n") > LINES]
    while len(found) < count and long:
        document = draw.choice(long)
        lines = document.content.split("\n")
        at = draw.randrange(len(lines) - LINES)
        if (text := "\n".join(lines[at : at + LINES])).strip():
            found.append((document, text))
    return found


def planted(corpus: Corpus, tracer: Tracer, count: int, draw: random.Random) -> list[Plant]:
    """Pieces of Python documents with twice the lexemes that a normalised match needs, enough of them different."""
    rule = tracer.rule
    found: list[Plant] = []
    shards = [shard for shard in tracer.index.shards if shard.split == "train"]
    while len(found) < count:
        shard = draw.choice(shards)
        document = shard.shard.document(draw.randrange(len(shard.shard)))
        is_python = document.language.lower() == "python" and document.kind == "code"
        for _, text in snippets([document], 1, draw) if is_python else ():
            hashes = Lexemes(text).all.hashes
            if hashes.size >= 2 * rule.normalized_lexemes and len(set(hashes.tolist())) >= 2 * rule.distinct:
                found.append(Plant(document.source, text))
    return found


def verbatim(text: str) -> str:
    return text


def reformatted(text: str) -> str:
    """Twice the indentation, quotes of the other kind, blanks inside parentheses, no blank lines."""
    lines = [re.sub(r"^( +)", lambda found: found[0] * 2, line).rstrip() for line in text.split("\n") if line.strip()]
    joined = "\n".join(lines)
    if "'" not in joined:
        joined = joined.replace('"', "'")
    return re.sub(r"\((?=\w)", "( ", joined)


def renamed(text: str) -> str:
    """Every name but attributes and keywords replaced, the same by the same, as Python's lexer sees them."""
    lines = text.split("\n")
    names: dict[str, str] = {}
    before = ""
    edits: list[tuple[int, int, int, str]] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(_dedented(text)).readline):
            if (
                token.type == tokenize.NAME
                and not keyword.iskeyword(token.string)
                and before != "."
                and token.string != "self"
            ):
                new = names.setdefault(token.string, f"name_{len(names)}")
                edits.append((token.start[0] - 1, token.start[1], token.end[1], new))
            before = token.string
    except (tokenize.TokenError, IndentationError):
        pass  # the piece ends inside a bracket or a string: what was read until there is renamed
    shift = _indentation(text)
    for row, start, end, new in reversed(edits):
        line = lines[row]
        lines[row] = line[: start + shift] + new + line[end + shift :]
    return "\n".join(lines)


def _indentation(text: str) -> int:
    return min((len(line) - len(line.lstrip(" ")) for line in text.split("\n") if line.strip()), default=0)


def _dedented(text: str) -> str:
    shift = _indentation(text)
    return "\n".join(line[shift:] for line in text.split("\n"))
