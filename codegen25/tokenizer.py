"""Text and token ids: the family's 51,200-id encoding, or the byte-level BPE that a model folder brings.

Both run on tiktoken's `Encoding`, offline. Control tokens (`<mask_1>`, `<sep>`, `<eom>`, `<|endoftext|>`, …) are ids
that no text reaches unless the caller asks with `allow_control=True`: `<mask_1>` inside somebody's file stays text.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex  # type: ignore[import-untyped]
import tiktoken

from codegen25.errors import CodegenError

END_OF_TEXT = "<|endoftext|>"
SEPARATOR = "<sep>"
END_OF_MASK = "<eom>"

# The pieces that BPE works within: GPT-2's, and SmolLM2's, where every digit is a piece of its own (which is what
# Hugging Face writes as Digits(individual_digits) followed by ByteLevel).
GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
DIGITS_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"""

# GPT-2's within what is left between runs of spaces and of tabs, each of which is one piece: CodeGen1's and CodeGen2's,
# where these runs are tokens that are taken out of a text first, from the left, the longest there is.
RUNS_PATTERN = (
    r""" {2,31}|\t{2,9}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"""
    r"""|(?:(?!  |\t\t)\s)+(?=\s|$)|(?:(?!  |\t\t)\s)+"""
)

# Bytes that no text encodes to (RFC 3629); a vocabulary may lack them.
NEVER_IN_UTF8 = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})

_RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
_FAMILY_NAMES = {
    50295: "<fim_prefix> <fim_middle> <fim_suffix> <fim_pad> <filename> <gh_stars> <issue_start> <issue_comment>",
    50303: "<issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <empty_output>",
    50309: "<commit_before> <commit_msg> <commit_after> <reponame> <dummy_0> <dummy_1> <dummy_2> <dummy_3> <sep> <eom>",
}
_FAMILY_SIZE = 51200
_FAMILY_MASKS = 881


class Tokenizer:
    """One encoding: byte strings and control tokens, each with an id in `range(n_vocab)`."""

    def __init__(
        self,
        ranks: Mapping[bytes, int],
        *,
        pattern: str,
        control: Mapping[str, int],
        id_of_rank: Sequence[int] | None = None,
        unreachable: Mapping[bytes, int] | None = None,
        definition: str | None = None,
    ) -> None:
        """`ranks`: bytes to merge rank, which is also the id unless `id_of_rank` says otherwise. `control`: name to id.

        `unreachable`: ids that decode but that no text encodes to. `definition`: the `tokenizer.json` this came from.
        """
        self.control: Mapping[str, int] = dict(control)
        self.pattern = pattern
        self.definition = definition
        self._id_of_rank = list(id_of_rank) if id_of_rank is not None else None
        special = dict(control)
        if self._id_of_rank is not None:
            special = {name: len(self._id_of_rank) + position for position, name in enumerate(control)}
            self._id_of_rank += control.values()
        self._encoding = tiktoken.Encoding(
            "codegen25", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens=special
        )
        self._control_names = frozenset(control)
        self._control_ids = frozenset(control.values())
        self._bytes_of_id = {self._id(rank): token for token, rank in ranks.items()}
        self._bytes_of_id |= {id: token for token, id in (unreachable or {}).items()}
        self._bytes_of_id |= {id: name.encode() for name, id in control.items()}
        self.n_vocab = max(self._bytes_of_id) + 1
        self.eot = control[END_OF_TEXT]
        self.sep = control[SEPARATOR]
        self.eom = control[END_OF_MASK]
        self.masks = tuple(_masks(control))

    def _id(self, rank: int) -> int:
        return rank if self._id_of_rank is None else self._id_of_rank[rank]

    def encode(self, text: str, *, allow_control: bool = False) -> list[int]:
        """The ids of `text`, nothing added before or after. Control strings become control ids only if allowed.

        Raises CodegenError when `text` holds a lone surrogate, which no UTF-8 file can.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CodegenError(
                f"the text holds a lone surrogate, U+{ord(text[error.start]):04X}, at character {error.start}: "
                "it is not valid Unicode; read the file as UTF-8 again"
            ) from None
        allowed = self._control_names if allow_control else frozenset[str]()
        try:
            ids = self._encoding.encode(text, allowed_special=allowed, disallowed_special=())
        except ValueError as error:  # the pattern's engine has a bounded stack
            raise CodegenError(
                f"the text cannot be split into tokens ({error}): break up its run of several 100,000 blank characters"
            ) from None
        return ids if self._id_of_rank is None else [self._id_of_rank[rank] for rank in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`: control tokens by name, bytes that are not UTF-8 as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`, exact. Raises CodegenError for an id outside the vocabulary."""
        return b"".join([self.token_bytes(id) for id in ids])

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; a control token's are its name. Raises CodegenError for an id that is no token."""
        try:
            return self._bytes_of_id[id]
        except KeyError:
            raise CodegenError(
                f"token id {id} is not in the vocabulary of {self.n_vocab}: "
                "use the tokenizer of the model that the ids come from"
            ) from None

    def is_control(self, id: int) -> bool:
        return id in self._control_ids

    def tokens_starting_with(self, prefix: bytes) -> Sequence[int]:
        """Ids of the tokens, control tokens aside, whose bytes start with `prefix`, in the order of their bytes."""
        keys, ids = self._sorted_tokens
        # Every key that starts with the prefix sorts below the prefix followed by more 0xff than any token holds.
        return ids[bisect_left(keys, prefix) : bisect_left(keys, prefix + self._above)]

    @cached_property
    def _sorted_tokens(self) -> tuple[list[bytes], list[int]]:
        pairs = sorted((token, id) for id, token in self._bytes_of_id.items() if id not in self._control_ids)
        return [token for token, _ in pairs], [id for _, id in pairs]

    @cached_property
    def _above(self) -> bytes:
        return b"\xff" * (1 + max(map(len, self._sorted_tokens[0])))

    def last_piece(self, text: str) -> str:
        """The end of `text` whose tokens can change when more text follows; '' for ''.

        `encode(text + more)` begins with `encode(text.removesuffix(last_piece(text)))` for every `more`. That is the
        last piece of the pattern, and the blanks before it where these, as the end of a text, would make other tokens.
        """
        pieces: list[str] = [match.group() for match in self._regex.finditer(text)]
        is_known = self.pattern in (GPT2_PATTERN, DIGITS_PATTERN)
        # Of an unknown pattern we assume that what follows reaches back over one piece at most. In ours only the
        # contractions do: "'r" is two pieces and "'re" is one.
        is_contraction = pieces[-2:-1] == ["'"] and pieces[-1] in ("r", "v", "l")
        start = max(0, len(pieces) - (1 if is_known and not is_contraction else 2))
        # "\n\nx" is three pieces and "\n\n" is one; in "\n    x" the piece " x" leaves the other blanks as they are.
        while start > 0 and pieces[start - 1].isspace() and not (is_known and pieces[start].startswith(" ")):
            start -= 1
        return "".join(pieces[start:])

    @cached_property
    def _regex(self) -> Any:
        return regex.compile(self.pattern)

    def stream(self) -> StreamDecoder:
        """A decoder to push ids into one by one."""
        return StreamDecoder(self)


class StreamDecoder:
    """Decodes ids as they come and never emits half a UTF-8 character. The emissions join to what `decode` gives."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """The characters that `id` completes, '' while one is unfinished."""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def flush(self) -> str:
        """Ends the text: bytes still held back, which begin a character, come out as U+FFFD."""
        return self._decoder.decode(b"", final=True)


def _masks(control: Mapping[str, int]) -> Iterable[int]:
    number = 1
    while f"<mask_{number}>" in control:
        yield control[f"<mask_{number}>"]
        number += 1


# ---------------------------------------------------------------------------------------------------- the family's own


def family_control() -> dict[str, int]:
    """The control tokens of the 51,200-id encoding, by name, in the order of their ids."""
    control = {END_OF_TEXT: 50256}
    for first, names in _FAMILY_NAMES.items():
        control |= {name: first + offset for offset, name in enumerate(names.split())}
    return control | {f"<mask_{number}>": _FAMILY_SIZE - number for number in range(_FAMILY_MASKS, 0, -1)}


def family_ranks() -> dict[bytes, int]:
    """The mergeable tokens of the 51,200-id encoding: GPT-2's, then runs of 31 to 2 spaces and of 9 to 2 tabs."""
    data = (resources.files("codegen25") / "ranks" / "gpt2.tiktoken").read_bytes()
    if hashlib.sha256(data).hexdigest() != _RANKS_SHA256:
        raise CodegenError("ranks/gpt2.tiktoken inside the package is damaged: install codegen25 again")
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, data.splitlines())}
    ranks |= {b" " * count: 50288 - count for count in range(31, 1, -1)}
    return ranks | {b"\t" * count: 50296 - count for count in range(9, 1, -1)}


@cache
def family() -> Tokenizer:
    """The 51,200-id encoding of CodeGen2.5."""
    return Tokenizer(family_ranks(), pattern=GPT2_PATTERN, control=family_control())


# ------------------------------------------------------------------------------------------------- a folder's tokenizer


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2, encoder.py, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    code_of_byte = dict(zip(printable, printable, strict=True)) | {byte: 256 + n for n, byte in enumerate(others)}
    return [chr(code_of_byte[byte]) for byte in range(256)]


_CHARACTERS = _byte_characters()
# Characters that stand for no byte become one that Latin-1 has not.
_TO_LATIN_1 = dict.fromkeys(range(256), 0xFFFF) | {ord(character): byte for byte, character in enumerate(_CHARACTERS)}


def to_byte_characters(token: bytes) -> str:
    """A token as `tokenizer.json` and GGUF write it: one printable character per byte."""
    return "".join([_CHARACTERS[byte] for byte in token])


def from_byte_characters(token: str) -> bytes:
    """The inverse of `to_byte_characters`. Raises KeyError for a character that stands for no byte."""
    try:
        return token.translate(_TO_LATIN_1).encode("latin-1")
    except UnicodeEncodeError as error:
        raise KeyError(token[error.start]) from None


def from_folder(path: Path) -> Tokenizer:
    """The tokenizer of a model folder: its byte-level BPE `tokenizer.json`, or the family's for the publisher's layout.

    Raises CodegenError when there is neither, or when the file asks for something this encoding cannot do exactly.
    """
    file = path / "tokenizer.json"
    if file.is_file():
        return from_json(*_read_object(file), file)
    if _is_publishers(path):
        return family()
    if not path.is_dir():
        raise CodegenError(f"{path}: no such folder; name a folder that holds a model")
    raise CodegenError(f"{path}: no tokenizer.json in this folder; export the model again with its tokenizer")


def _is_publishers(path: Path) -> bool:
    if (path / "tokenization_codegen25.py").is_file():
        return True
    config = path / "tokenizer_config.json"
    return config.is_file() and _read_object(config)[1].get("tokenizer_class") == "CodeGen25Tokenizer"


def _read_object(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise CodegenError(f"{file}: not readable as JSON ({error}); copy the file again") from None
    if not isinstance(value, dict):
        raise CodegenError(f"{file}: not a JSON object; copy the file again")
    return text, value


def from_json(text: str, spec: Mapping[str, Any], file: Path) -> Tokenizer:
    """The tokenizer that a `tokenizer.json` defines, which stands in `file`; `spec` is what `text` holds.

    Raises CodegenError when it asks for something this encoding cannot do exactly.
    """
    try:
        return _from_spec(text, spec)
    except _Unsupported as error:
        raise CodegenError(f"{file}: {error}; byte-level BPE as codegen25 writes it is needed") from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, regex.error) as error:
        raise CodegenError(f"{file}: not a valid tokenizer ({error!r}); copy the file again") from None


class _Unsupported(Exception):
    """What a `tokenizer.json` asks for and this encoding cannot do."""


def _from_spec(text: str, spec: Mapping[str, Any]) -> Tokenizer:
    model = spec["model"]
    if model.get("type", "BPE") != "BPE":
        raise _Unsupported(f"the model type is {model['type']}")
    if spec.get("normalizer") is not None:
        raise _Unsupported(f"it has a normalizer, {spec['normalizer'].get('type')}")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(option):
            raise _Unsupported(f"it uses {option}")
    vocab: dict[str, int] = model["vocab"]
    runs = {token["content"]: token["id"] for token in spec.get("added_tokens") or [] if _is_run(token["content"])}
    control = _added_tokens([token for token in spec.get("added_tokens") or [] if token["content"] not in runs], vocab)
    pattern = _pattern(spec.get("pre_tokenizer"))
    if runs:
        if set(runs) != _RUNS or pattern != GPT2_PATTERN:
            raise _Unsupported("some runs of spaces or tabs are tokens, but not those of CodeGen2")
        pattern = RUNS_PATTERN
    regex.compile(pattern)
    ordered = _in_merge_order(vocab, model["merges"]) | {run.encode(): id for run, id in runs.items()}
    missing = [byte for byte in range(256) if bytes([byte]) not in ordered and byte not in NEVER_IN_UTF8]
    if missing:
        raise _Unsupported(f"it has no token for the byte 0x{missing[0]:02x}")
    ids = list(ordered.values())
    reachable = set(ids)
    unreachable = {
        from_byte_characters(token): id for token, id in vocab.items() if id not in reachable and token not in control
    }
    merge_ids = [id for token, id in ordered.items() if len(token) > 1]
    if all(before < after for before, after in pairwise(merge_ids)):
        return Tokenizer(ordered, pattern=pattern, control=control, unreachable=unreachable, definition=text)
    ranks = {token: rank for rank, token in enumerate(ordered)}
    return Tokenizer(ranks, pattern=pattern, control=control, id_of_rank=ids, unreachable=unreachable, definition=text)


def _in_merge_order(vocab: Mapping[str, int], merges: Sequence[Any]) -> dict[bytes, int]:
    """Token bytes to id: single bytes first, then what each merge makes, in the order of the merges."""
    ordered = {bytes([byte]): vocab[char] for byte, char in enumerate(_CHARACTERS) if char in vocab}
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        token = from_byte_characters(left + right)
        if token in ordered:
            raise _Unsupported(f"two merges make the token {left + right!r}")
        ordered[token] = vocab[left + right]
    return ordered


_RUNS = {" " * count for count in range(2, 32)} | {"\t" * count for count in range(2, 10)}


def _is_run(token: str) -> bool:
    return len(token) > 1 and not token.strip(token[0]) and token[0] in " \t"


def _added_tokens(added: Sequence[Mapping[str, Any]], vocab: Mapping[str, int]) -> dict[str, int]:
    control: dict[str, int] = {token["content"]: token["id"] for token in added}
    for token in added:
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word"):
            raise _Unsupported(f"the control token {token['content']} swallows the spaces around it")
    for name in (END_OF_TEXT, SEPARATOR, END_OF_MASK, "<mask_1>"):
        if name not in control:
            raise _Unsupported(f"it lacks the control token {name}")
    for before, after in pairwise(sorted(control)):
        if after.startswith(before):  # which of the two a text means would depend on the search order
            raise _Unsupported(f"the control token {before!r} begins another, {after!r}")
    ids = list(control.values()) + [id for token, id in vocab.items() if token not in control]
    if len(set(ids)) != len(ids) or any(vocab.get(name, id) != id for name, id in control.items()):
        raise _Unsupported("two tokens share one id")
    return control


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The one pattern that splits text as the `pre_tokenizer` section of a `tokenizer.json` does."""
    steps = [pre_tokenizer or {}]
    if steps[0].get("type") == "Sequence":
        steps = steps[0]["pretokenizers"]
    kinds = [step.get("type") for step in steps]
    if kinds[-1:] != ["ByteLevel"] or steps[-1].get("add_prefix_space", True):
        raise _Unsupported(f"its pre-tokenizer is {'+'.join(map(str, kinds))}, not ByteLevel without a prefix space")
    whole = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and whole:
        return GPT2_PATTERN
    if kinds == ["Digits", "ByteLevel"] and whole and steps[0].get("individual_digits"):
        return DIGITS_PATTERN
    if kinds == ["Split", "ByteLevel"] and not whole:
        split = steps[0]
        if split["behavior"] == "Isolated" and not split.get("invert") and "Regex" in split["pattern"]:
            return str(split["pattern"]["Regex"])
    raise _Unsupported(f"its pre-tokenizer is {'+'.join(map(str, kinds))} with settings that are not supported")
