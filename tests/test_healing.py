"""Token healing: whatever is chosen among the allowed tokens spells the required bytes, and natural text stays open."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25 import infill
from codegen25.engine import healing
from codegen25.errors import CodegenError
from codegen25.tokenizer import GPT2_PATTERN, Tokenizer, family

FAMILY = family()
CONTROL = {name: 300 + n for n, name in enumerate(["<|endoftext|>", "<sep>", "<eom>", "<mask_1>"])}
# Hardly any merges: most characters that are not ASCII take several tokens.
BYTES = Tokenizer(
    {bytes([n]): n for n in range(256)}
    | {token: 256 + n for n, token in enumerate([b"re", b"ret", b"ur", b"urn", b"return", b" return", b"  ", b"    "])}
    | {b"\n\n": 264, "π".encode(): 265, "漢".encode()[:2]: 266},
    pattern=GPT2_PATTERN,
    control=CONTROL,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CODE = st.lists(
    st.sampled_from(["return", "ret", " ", "    ", "\n", "\t", "'", "'re", "x", "π", "漢字", "é", "👧", "(", "12"]),
    max_size=8,
).map("".join)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [FAMILY, BYTES], ids=["family", "bytes"])


@TOKENIZERS
@given(text=TEXT | CODE)
def test_split(tokenizer: Tokenizer, text: str) -> None:
    kept, required = healing.split(tokenizer, text)
    assert kept.encode() + required == text.encode()
    assert bool(required) == bool(text)


def test_split_takes_the_last_word_with_the_blanks_before_it() -> None:
    assert healing.split(FAMILY, "def f(x):\n    ret") == ("def f(x):\n   ", b" ret")
    assert healing.split(FAMILY, "x = 1\n        ") == ("x = 1", b"\n        ")


@TOKENIZERS
@given(text=TEXT | CODE, more=TEXT | CODE)
def test_what_stays_keeps_its_tokens(tokenizer: Tokenizer, text: str, more: str) -> None:
    kept = tokenizer.encode(healing.split(tokenizer, text)[0])
    assert tokenizer.encode(text + more)[: len(kept)] == kept


@pytest.mark.parametrize("run", ["a", "=", " ", "\n", "漢", "1", "👧"])
def test_only_the_end_of_a_very_long_piece_is_healed(run: str) -> None:
    text = "x" + run * 5000
    kept, required = healing.split(FAMILY, text)
    assert kept + required.decode() == text
    assert 0 < len(required.decode()) <= healing.LONGEST


@pytest.mark.parametrize("text", ["\ud800", "x = \udcff", "\udcffx", "\udcff x"])
def test_a_lone_surrogate_is_named(text: str) -> None:
    with pytest.raises(CodegenError, match="lone surrogate"):
        FAMILY.encode(healing.split(FAMILY, text)[0])


@TOKENIZERS
@settings(max_examples=50)
@given(text=(TEXT | CODE).filter(bool), seed=st.integers(0, 2**32))
def test_every_way_through_the_allowed_tokens_spells_the_bytes(tokenizer: Tokenizer, text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    required, spelled = text.encode(), b""
    while required:
        ids = healing.allowed(tokenizer, required)
        assert len(ids) > 0 and len(set(ids.tolist())) == len(ids)
        # Short tokens leave the most to go wrong after them, so they are taken as often as the long ones.
        shortest = min(ids, key=lambda id: len(tokenizer.token_bytes(int(id))))
        token = tokenizer.token_bytes(int(rng.choice([shortest, rng.choice(ids)])))
        assert token and (token.startswith(required) or required.startswith(token))
        spelled += token
        required = healing.remaining(required, token)
    assert spelled.startswith(text.encode())


@TOKENIZERS
@settings(max_examples=50)
@given(text=TEXT | CODE)
def test_the_tokenizers_own_spelling_is_allowed(tokenizer: Tokenizer, text: str) -> None:
    _, required = healing.split(tokenizer, text)
    for id in tokenizer.encode(required.decode()):
        if not required:
            break
        assert id in healing.allowed(tokenizer, required)
        required = healing.remaining(required, tokenizer.token_bytes(id))


@given(required=(TEXT | CODE).filter(bool).map(str.encode))
def test_all_tokens_that_reach_the_end_are_allowed_and_no_control_token(required: bytes) -> None:
    ids = healing.allowed(BYTES, required).tolist()
    expected = {id for id in range(267) if BYTES.token_bytes(id).startswith(required)}
    assert {id for id in ids if BYTES.token_bytes(id).startswith(required)} == expected
    assert max(ids) < 267


def test_control_names_in_the_required_bytes_stay_text() -> None:
    ids = healing.allowed(FAMILY, b"<mask_1>")
    assert ids.tolist() and not any(FAMILY.is_control(int(id)) for id in ids)


def test_the_blank_before_the_next_word_stays_open() -> None:
    """`    return` is three blanks and ` return`, so four blanks must not be the only way to spell four."""
    spelled = {FAMILY.token_bytes(int(id)) for id in healing.allowed(FAMILY, b"    ")}
    assert {b"    ", b"   "} <= spelled and b"  " not in spelled
    assert b" return" in {FAMILY.token_bytes(int(id)) for id in healing.allowed(FAMILY, b" ")}


def test_natural_code_stays_open() -> None:
    """Cut anywhere, real code can be written on with the tokens that it has as a whole, but for few cuts in words."""
    text = Path(infill.__file__).read_text()
    rng = random.Random(0)
    closed = 0
    for _ in range(400):
        cut = rng.randrange(1, len(text) - 100)
        start = text.rfind("\n", 0, max(0, cut - 100)) + 1
        kept, required = healing.split(FAMILY, text[start:cut])
        for id in FAMILY.encode(text[start : cut + 60])[len(FAMILY.encode(kept)) :]:
            if not required:
                break
            if id not in healing.allowed(FAMILY, required):
                closed += 1
                break
            required = healing.remaining(required, FAMILY.token_bytes(id))
    assert closed <= 8
