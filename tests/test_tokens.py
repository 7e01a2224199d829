"""Bulk tokenizing gives the ids of tiktoken, whatever the text; prefixes are those of StarCoder."""

from __future__ import annotations

import json
import pickle
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_corpus import document, tokenizer, vocabulary

from codegen25.data import tokens
from codegen25.data.document import Kind
from codegen25.data.prefix import metadata_prefix, prefix_fields, star_bucket
from codegen25.data.tokens import STRUCTURE, BulkTokenizer, Vocabulary
from codegen25.errors import CodegenError
from codegen25.model.hf_tokenizer import tokenizer_json
from codegen25.tokenizer import Tokenizer, family, family_control, from_folder

PREFIX = ["<reponame>", "<filename>", "<gh_stars>"]
CONTROL = list(family_control())
HOSTILE = [
    "", "\0", "a\0\0b\0", " ", "\n", "\t" * 9, "\t" * 10_000, " " * 31, " " * 32, " " * 1_000, " \t" * 5_000,
    "\r\n\r\n \r", "<<mask_1>>", "\ufeffx", "don't we'LL 'VE x're", "\u3000\u2028\u0085\x1c\x1d a",
    "<mask_1>", "a<|endoftext|>b", "<sep><eom><mask_881><fim_prefix><filename>x<gh_stars>", "<mask_", "|endoftext|>",
    "<issue_start><issue_comment>Title: <mask_1><issue_closed><|endoftext|>",
    "é" * 999, "👩‍👩‍👧‍👦🏳️‍🌈", "\u202e\u2066\u200b\u00ad", "ก็็็็็็", "中文代码 = 1\n", "٣٤٥६७", "x" * 20_000, "9" * 20_000,
    "\u017f'\u017f 'S \u212a", "\U0010ffff\ue000\ufffd", "Z\u0301" * 500, "=" * 5_000 + "\n" + "-" * 5_000,
    "\x7f\x80\x9f\xa0b",
]  # fmt: skip
PIECES = [
    *HOSTILE[1:8],
    *CONTROL[:40],
    "def f(x):",
    "    return",
    "\n",
    "  ",
    "\t",
    "0",
    "1e9",
    "'s",
    "é",
    "😀",
    "\r",
    "ß",
    "_",
]
texts = st.lists(
    st.one_of(st.sampled_from(PIECES), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)), max_size=30
).map("".join)


def encode(batch: list[str], kinds: list[Kind] | None = None) -> list[list[int]]:
    ids, ends = tokenizer().encode_batch(batch, kinds or [])
    assert ids.dtype == np.uint16 and ends.dtype == np.uint64 and len(ends) == len(batch)
    return [part.tolist() for part in np.split(ids, ends.astype(np.int64))[:-1]]


@cache
def nano() -> tuple[Tokenizer, BulkTokenizer]:
    folder = Path(tokens.__file__).parent.parent / "models" / "nano"
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    return from_folder(folder), BulkTokenizer(Vocabulary.from_json(text))


def structured(text: str) -> list[int]:
    """The slow reference: tiktoken, with the dataset's structure allowed and nothing else."""
    return family()._encoding.encode(text, allowed_special=set(STRUCTURE), disallowed_special=())


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_have_the_ids_of_tiktoken(text: str) -> None:
    assert encode([text]) == [family().encode(text)]
    assert encode([text], ["issue"]) == [structured(text)]


def test_a_megabyte_of_blanks() -> None:
    """tiktoken's own pattern gives up on so many; they are runs of 31, then what is left."""
    assert encode([" " * 1_000_000]) == [[50257] * 32258 + [50286]]
    assert encode(["\t" * 900_000 + "x"])[0][-3:] == [50288, 197, 87]


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=6))
def test_any_text_has_the_ids_of_tiktoken(batch: list[str]) -> None:
    assert encode(batch) == [family().encode(text) for text in batch]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(texts, st.sampled_from(["code", "issue", "commit", "jupyter"])), max_size=6))
def test_structure_becomes_ids_where_it_is_structure(batch: list[tuple[str, Kind]]) -> None:
    expected = [family().encode(text) if kind == "code" else structured(text) for text, kind in batch]
    assert encode([text for text, _ in batch], [kind for _, kind in batch]) == expected


def test_thousands_of_random_texts() -> None:
    draw = random.Random(25)

    def text() -> str:
        alphabet = draw.choice(
            ["ab \n", " \t\n\r", "aé中😀", "09 .-_", "<>|mask_1sepeom", "'stremvld A", "\u0300\u200d x"]
        )
        return "".join(draw.choice([draw.choice(alphabet), draw.choice(PIECES)]) for _ in range(draw.randrange(60)))

    batch = [text() for _ in range(6_000)]
    assert encode(batch) == [family().encode(text) for text in batch]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(texts, st.sampled_from(["a  5", "x1.5e-9", "  12\n 7", "٣٤x²½"])), min_size=1, max_size=6))
def test_a_vocabulary_with_digits_apart(batch: list[str]) -> None:
    """nano's, which is SmolLM2's: Digits, then ByteLevel."""
    own, bulk = nano()
    ids, ends = bulk.encode_batch(batch)
    found = [part.tolist() for part in np.split(ids, ends.astype(np.int64))[:-1]]
    assert found == [own.encode(text) for text in batch]


def test_nothing_is_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "FORGET_AFTER", 100)
    bulk = BulkTokenizer(vocabulary())
    first = bulk._backend
    text = "def forget(everything): " * 4
    for _ in range(3):
        assert bulk.encode_batch([text])[0].tolist() == family().encode(text)
    assert bulk._backend is not first


def test_a_vocabulary_is_named_by_what_it_says() -> None:
    spec = tokenizer_json()
    one, same = (Vocabulary.from_json(json.dumps(spec, **style)) for style in ({"indent": 2}, {"sort_keys": True}))
    assert (one.size, one.end, one.hash) == (51200, 50256, same.hash)
    assert pickle.loads(pickle.dumps(one)) == one and len(repr(one)) < 200
    spec["model"]["merges"].pop()
    assert Vocabulary.from_json(json.dumps(spec)).hash != one.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.pop("model"), "not a valid tokenizer"),
        (lambda spec: spec["model"].update(vocab={}), "cannot be used in bulk"),
        (lambda spec: spec.update(added_tokens=[]), "has no <|endoftext|>"),
        (lambda spec: spec["model"]["vocab"].update(x=70_000), "do not fit in 16 bits"),
        (lambda spec: spec["model"].update(type="WordPiece"), "cannot be used in bulk"),
    ],
)
def test_what_is_no_vocabulary_is_refused_in_one_line(change: Any, message: str) -> None:
    spec = tokenizer_json()
    change(spec)
    with pytest.raises(CodegenError, match=re.escape(message) if "<" in message else message) as caught:
        BulkTokenizer(Vocabulary.from_json(json.dumps(spec)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"model": 3}', "{"])
def test_what_is_no_tokenizer_at_all(text: str) -> None:
    with pytest.raises(CodegenError, match="not a valid tokenizer"):
        Vocabulary.from_json(text)


def test_buckets_of_stars() -> None:
    assert [star_bucket(stars) for stars in (0, 1, 10, 11, 100, 101, 1000, 1001)] == [
        "0", "1-10", "1-10", "10-100", "10-100", "100-1000", "100-1000", "1000+",
    ]  # fmt: skip


def test_each_field_stands_before_one_document_in_five() -> None:
    documents = [document(f"x = {n}\n", stars=50) for n in range(4_000)]
    count = Counter(name for one in documents for name, _ in prefix_fields(one))
    assert set(count) == {"<reponame>", "<filename>", "<gh_stars>"}
    assert all(abs(found - 800) < 4 * (4_000 * 0.2 * 0.8) ** 0.5 for found in count.values())
    together = sum(len(prefix_fields(one)) == 3 for one in documents)
    assert 8 <= together <= 64  # one in 125: they are drawn apart from each other


def test_a_prefix_is_control_tokens_around_text() -> None:
    """Names are text whatever they say, and the order is that of StarCoder."""
    for number in range(300):
        one = document(f"y = {number}\n", source="owner/<mask_1>", path="a/<|endoftext|>.py", stars=number)
        fields = prefix_fields(one)
        ids = metadata_prefix(one, tokenizer()).tolist()
        expected: list[int] = []
        for place, (name, text) in enumerate(fields):
            line_break = "\n" if place == len(fields) - 1 else ""
            expected += [family_control()[name], *family().encode(text + line_break)]
        assert ids == expected
        assert [name for name, _ in fields] == sorted(
            (n for n, _ in fields), key=["<reponame>", "<filename>", "<gh_stars>"].index
        )


def test_no_prefix_of_what_is_not_known_or_has_its_own() -> None:
    assert all(name != "<gh_stars>" for n in range(99) for name, _ in prefix_fields(document(f"{n}")))
    assert not any(prefix_fields(document(f"{n}", kind="issue", stars=5)) for n in range(99))


def test_a_prefix_needs_its_control_tokens() -> None:
    spec = tokenizer_json()
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] == "<|endoftext|>"]
    bulk = BulkTokenizer(Vocabulary.from_json(json.dumps(spec)))
    prefixed = next(one for one in (document(f"{n}", stars=5) for n in range(99)) if prefix_fields(one))
    with pytest.raises(CodegenError, match="leave --metadata-prefix out"):
        metadata_prefix(prefixed, bulk)
    assert bulk.encode_batch(["<issue_start>"], ["issue"])[0].tolist() == family().encode("<issue_start>")
