"""What may stand before a document: its repository, its path and its stars, as StarCoder was trained to expect.

`<reponame>R<filename>F<gh_stars>S`, a line break, the code; each field is there in one of five documents, so that a
model learns to do with and without it (StarCoder, arXiv:2305.06161, section 5.1).
"""

from __future__ import annotations

import hashlib

import numpy as np

from codegen25.data.document import Document
from codegen25.data.tokens import FILENAME, REPONAME, STARS, BulkTokenizer, Ids

PROBABILITY = 0.2
# The most stars of each bucket.
BUCKETS = ((0, "0"), (10, "1-10"), (100, "10-100"), (1000, "100-1000"))


def star_bucket(stars: int) -> str:
    """Stars as the model is told of them."""
    return next((name for most, name in BUCKETS if stars <= most), "1000+")


def prefix_fields(document: Document) -> list[tuple[str, str]]:
    """The (control token, text) that stand before a document; which they are depends on its id alone.

    Texts that are not code come with a structure of their own and get none; unknown stars are left out.
    """
    if document.kind != "code":
        return []
    fields = [(REPONAME, document.source), (FILENAME, document.path)]
    if document.stars is not None:
        fields.append((STARS, star_bucket(document.stars)))
    return [(name, text) for name, text in fields if _drawn(name, document.id)]


def _drawn(name: str, id: str) -> bool:
    digest = hashlib.sha256(f"{name}/{id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < PROBABILITY * 2**64


def metadata_prefix(document: Document, tokenizer: BulkTokenizer) -> Ids:
    """The ids that go before the document's own: none, or its fields and a line break."""
    fields = prefix_fields(document)
    if not fields:
        return np.empty(0, np.uint16)
    texts = [text for _, text in fields]
    texts[-1] += "\n"
    ids, ends = tokenizer.encode_batch(texts)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1].astype(np.int64)])
    return np.insert(ids, starts, [tokenizer.vocabulary.control_id(name) for name, _ in fields]).astype(np.uint16)
