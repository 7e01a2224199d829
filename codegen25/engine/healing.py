"""Token healing: the end of a prompt goes back to the model as bytes that the answer has to begin with.

Where a prompt stops inside what would be one token of natural text (an identifier, the blanks before a word), its last
tokens are ones the model hardly ever saw in that place. So they are taken off, and the first tokens of the answer are
held to spelling the same bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codegen25.tokenizer import Tokenizer

# In characters. Hardly a token is longer; a piece may be a run of blanks or a base64 line of any length.
LONGEST = 64


def split(tokenizer: Tokenizer, text: str) -> tuple[str, bytes]:
    """(what stays a prompt, the bytes that the answer must begin with): the last pre-tokenizer piece is cut off.

    Appending text can change the tokens of that piece only, so nothing before it needs healing. Of a piece that is
    very long only the end is cut off. Raises `CodegenError` when `text` holds a lone surrogate.
    """
    piece = tokenizer.last_piece(text)[-LONGEST:]
    try:
        required = piece.encode()
    except UnicodeEncodeError:
        tokenizer.encode(text)  # says for people what is wrong
        raise
    return text[: len(text) - len(piece)], required


def allowed(tokenizer: Tokenizer, required: bytes) -> NDArray[np.int64]:
    """The ids that may come next when the answer must begin with `required` (not empty).

    A token that reaches to the end of the bytes or beyond may always come. Of the shorter ones only those a tokenizer
    would write: the first token of the bytes, and of the bytes without their last character, which may belong to the
    next word (`"    "` before `return` is three blanks, then ` return`).
    """
    ids = set(tokenizer.tokens_starting_with(required))
    text = required.decode("utf-8", errors="replace")
    for shorter in (text, text[:-1]):
        if shorter:
            first = tokenizer.encode(shorter)[0]
            if required.startswith(tokenizer.token_bytes(first)):
                ids.add(first)
    if not ids:  # the rest of a character that an earlier token began
        ids.add(_longest_token(tokenizer, required))
    return np.fromiter(sorted(ids), dtype=np.int64)


def _longest_token(tokenizer: Tokenizer, required: bytes) -> int:
    """The longest token that `required` begins with; every single byte is one."""
    for end in range(len(required), 0, -1):
        for id in tokenizer.tokens_starting_with(required[:end]):
            if tokenizer.token_bytes(id) == required[:end]:
                return id
    raise AssertionError(f"no token for the byte {required[:1]!r}")


def remaining(required: bytes, token: bytes) -> bytes:
    """What is still required behind `token`, one of those that were allowed."""
    assert required.startswith(token) or token.startswith(required)
    return required[len(token) :]
