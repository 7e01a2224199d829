"""The `logprobs` object of OpenAI's completions."""

from __future__ import annotations

import codecs
import copy
from collections.abc import Iterable, Sequence
from typing import Any, Self

from codegen25.serve.scoring import Scored
from codegen25.tokenizer import Tokenizer


def token_text(tokenizer: Tokenizer, id: int) -> str:
    """A token as text; one that is no whole UTF-8 as `bytes:\\xe2\\x80`, so that different tokens stay different."""
    spelled = tokenizer.token_bytes(id)
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)


class Logprobs:
    """Grows with an answer. Offsets are characters of the text that the choice gives."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._found = _empty()

    def copy(self) -> Self:
        made = copy.copy(self)
        made._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        made._found = {name: list(values) for name, values in self._found.items()}
        return made

    def skip_to(self, offset: int) -> None:
        self._offset = max(0, offset)

    def add(self, tokens: Iterable[Scored]) -> None:
        for token in tokens:
            found = self._found
            text = token_text(self._tokenizer, token.id)
            found["tokens"].append(text)
            found["token_logprobs"].append(token.logprob)
            found["top_logprobs"].append(self._top(token, text))
            found["text_offset"].append(self._offset)
            if not self._tokenizer.is_control(token.id):
                self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(token.id)))

    def _top(self, token: Scored, text: str) -> dict[str, float] | None:
        """The likeliest, and the token itself where it is none of them."""
        if token.logprob is None:
            return None
        top = {token_text(self._tokenizer, id): logprob for id, logprob in token.top}
        return top | ({} if text in top else {text: token.logprob})

    def more(self, tokens: Sequence[Scored]) -> dict[str, Any]:
        """What is there with `tokens` behind it; it is not given again."""
        self.add(tokens)
        return self.taken()

    def taken(self) -> dict[str, Any]:
        taken, self._found = self._found, _empty()
        return taken


def _empty() -> dict[str, list[Any]]:
    return {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
