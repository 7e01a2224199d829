"""The 51,200-id encoding: against the publisher's vectors, against tiktoken, and on arbitrary text."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen25 import tokenizer as module
from codegen25.errors import CodegenError
from codegen25.tokenizer import DIGITS_PATTERN, GPT2_PATTERN, Tokenizer, family, family_control, family_ranks

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
# What splits in unusual places: contractions, digits, blanks of every kind, control strings, joined emoji.
BORDERS = [
    "'",
    "'r",
    "e",
    "'ll",
    "v",
    "s",
    "d",
    "'T",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\u00a0",
    "\u2028",
    "\x1c",
    "\x85",
]
PARTS = ["def", " x", "é", "e\u0301", "π", "👩‍👩‍👧", "漢字", "()", "#", "==", "\0", "9", "12", "²"]
CONTROL = ["<mask_1>", "<sep>", "<eom>", "<|endoftext|>", "<mask_"]
CODE = st.lists(st.sampled_from([*BORDERS, *PARTS, *CONTROL]), max_size=25).map("".join)
# Few characters, so that borders meet.
TIGHT = st.text(" \t\n\u00a0'rlvx1_", max_size=10)
ANY = TEXT | CODE | TIGHT | st.tuples(TEXT, CODE).map("".join)

PUBLISHERS_VECTORS = {
    "int add(int a, int b) { return a + b; }\nπ": [
        *(600, 751, 7, 600, 257, 11, 493, 275, 8, 1391, 1441, 257, 1343, 275, 26, 1782, 198, 46582)
    ],
    "<fim_prefix>abc<fim_suffix>xyz<fim_middle>": [50295, 39305, 50297, 5431, 89, 50296],
    "prefix<mask_1>suffix<|endoftext|><sep><mask_1>": [40290, 51199, 37333, 844, 50256, 50317, 51199],
}
FURTHER_VECTORS = {
    "    return x": [50285, 1441, 2124],
    "        x": [50281, 2124],
    "\t\tx": [197, 197, 87],
    " " * 32: [50257, 220],
    " " * 62: [50257, 50257],
    "\t" * 20: [50287, 50287, 50294],
    "  \t  x": [50286, 197, 220, 2124],
    " ": [220],
    "\t": [197],
    "\n": [198],
    "\n\n": [628],
    "def hello_world():\n    <mask_1>    return name<|endoftext|><sep><mask_1>": [
        *(4299, 23748, 62, 6894, 33529, 198, 50284, 51199, 50285, 1441, 1438, 50256, 50317, 51199)
    ],
}
NAMED_IDS = {
    "<|endoftext|>": 50256,
    "<fim_prefix>": 50295,
    "<fim_middle>": 50296,
    "<fim_suffix>": 50297,
    "<fim_pad>": 50298,
    "<filename>": 50299,
    "<gh_stars>": 50300,
    "<issue_start>": 50301,
    "<issue_comment>": 50302,
    "<issue_closed>": 50303,
    "<jupyter_start>": 50304,
    "<jupyter_text>": 50305,
    "<jupyter_code>": 50306,
    "<jupyter_output>": 50307,
    "<empty_output>": 50308,
    "<commit_before>": 50309,
    "<commit_msg>": 50310,
    "<commit_after>": 50311,
    "<reponame>": 50312,
    "<dummy_0>": 50313,
    "<dummy_3>": 50316,
    "<sep>": 50317,
    "<eom>": 50318,
    "<mask_881>": 50319,
    "<mask_1>": 51199,
}


@pytest.fixture(scope="module")
def oracle() -> tiktoken.Encoding:
    """tiktoken with its own form of the GPT-2 pattern, and its own check that the 51,200 ids have no holes."""
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    return tiktoken.Encoding(
        "oracle",
        pat_str=pattern,
        mergeable_ranks=family_ranks(),
        special_tokens=family_control(),
        explicit_n_vocab=51200,
    )


@pytest.mark.parametrize(("text", "ids"), [*PUBLISHERS_VECTORS.items(), *FURTHER_VECTORS.items()])
def test_vectors(text: str, ids: list[int]) -> None:
    assert family().encode(text, allow_control=True) == ids
    assert family().decode(ids) == text


def test_every_id_has_its_place() -> None:
    tokenizer = family()
    assert tokenizer.n_vocab == 51200
    assert [tokenizer.token_bytes(50288 - n) for n in range(31, 1, -1)] == [b" " * n for n in range(31, 1, -1)]
    assert [tokenizer.token_bytes(50296 - n) for n in range(9, 1, -1)] == [b"\t" * n for n in range(9, 1, -1)]
    assert {name: tokenizer.control[name] for name in NAMED_IDS} == NAMED_IDS
    assert tokenizer.masks == tuple(range(51199, 50318, -1))
    assert (tokenizer.eot, tokenizer.sep, tokenizer.eom) == (50256, 50317, 50318)
    assert len({tokenizer.token_bytes(id) for id in range(51200)}) == 51200
    assert [id for id in range(51200) if tokenizer.is_control(id)] == [50256, *range(50295, 51200)]


def test_tokens_that_are_no_text_alone() -> None:
    def is_text(token: bytes) -> bool:
        return token.decode(errors="ignore").encode() == token

    assert sum(not is_text(family().token_bytes(id)) for id in range(51200)) == 344


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_equals_tiktoken_and_comes_back(oracle: tiktoken.Encoding, text: str) -> None:
    tokenizer = family()
    ids = tokenizer.encode(text)
    assert ids == oracle.encode_ordinary(text)
    assert not any(map(tokenizer.is_control, ids))
    allowed = tokenizer.encode(text, allow_control=True)
    assert allowed == oracle.encode(text, allowed_special="all")
    assert tokenizer.decode(ids) == tokenizer.decode(allowed) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@pytest.mark.parametrize("name", ["<mask_1>", "<sep>", "<eom>", "<|endoftext|>", "<fim_pad>", "<mask_881>"])
def test_a_control_string_in_text_stays_text(name: str) -> None:
    tokenizer = family()
    assert tokenizer.control[name] not in tokenizer.encode(f"x = '{name}'")
    assert tokenizer.control[name] in tokenizer.encode(f"x = '{name}'", allow_control=True)


def test_a_lone_surrogate_is_one_clear_line() -> None:
    with pytest.raises(CodegenError, match=r"U\+D800, at character 2"):
        family().encode("ab\ud800")


def test_a_giant_run_of_blanks_is_refused_and_a_large_one_is_not() -> None:
    assert family().decode(family().encode("\n" * 50_000 + "x")) == "\n" * 50_000 + "x"
    with pytest.raises(CodegenError, match="run of several 100,000 blank"):
        family().encode(" " * 1_000_000)


@pytest.mark.parametrize("id", [51200, -1, 10**9])
def test_an_id_outside_the_vocabulary(id: int) -> None:
    with pytest.raises(CodegenError, match=f"token id {id} is not in the vocabulary of 51200"):
        family().decode([id])


def test_damaged_ranks_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RANKS_SHA256", "0" * 64)
    with pytest.raises(CodegenError, match="install codegen25 again"):
        family_ranks()


@given(st.binary(max_size=4) | st.sampled_from([b"", b" ", b"\n", b"ret", b" ret", b"\xff", b"\xe6\xbc", b"<mask_1>"]))
@settings(max_examples=60, deadline=None)
def test_tokens_starting_with(prefix: bytes) -> None:
    tokenizer = family()
    found = tokenizer.tokens_starting_with(prefix)
    plain = (id for id in range(51200) if not tokenizer.is_control(id))
    expected = {id for id in plain if tokenizer.token_bytes(id).startswith(prefix)}
    assert set(found) == expected
    assert len(found) == len(expected)


def with_pattern(pattern: str) -> Tokenizer:
    return Tokenizer(family_ranks(), pattern=pattern, control=family_control())


LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TOKENIZERS = {name: with_pattern(name) for name in (GPT2_PATTERN, DIGITS_PATTERN, LLAMA3_PATTERN)}


@pytest.mark.parametrize("pattern", TOKENIZERS)
@given(text=ANY | TIGHT, more=ANY | TIGHT)
@settings(max_examples=500, deadline=None)
def test_only_the_last_piece_can_change(pattern: str, text: str, more: str) -> None:
    tokenizer = TOKENIZERS[pattern]
    last = tokenizer.last_piece(text)
    assert text.endswith(last)
    assert bool(last) == bool(text)
    kept = tokenizer.encode(text.removesuffix(last))
    assert tokenizer.encode(text + more)[: len(kept)] == kept


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("x = foo", " foo"),
        ("x:\n    ", "\n    "),
        ("x\n\n", "\n\n"),
        ("x\n\ndef", "\n\ndef"),
        ("\t\tx", "\t\tx"),
        ("x\n    y", " y"),
        ("don't", "'t"),
        ("x'r", "'r"),
        ("a 'r", "r"),
    ],
)
def test_last_piece(text: str, last: str) -> None:
    assert family().last_piece(text) == last


def test_the_licence_of_the_ranks_is_beside_them() -> None:
    notice = Path(module.__file__).with_name("ranks") / "LICENSE"
    assert "Copyright (c) 2019 OpenAI" in notice.read_text(encoding="utf-8")
