"""A corpus is read as it was written, found to be damaged when it is, and its documents are found by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_corpus import document, many, vocabulary, write_corpus

from codegen25.data.corpus import Corpus
from codegen25.data.document import Redaction
from codegen25.data.show import show
from codegen25.errors import CodegenError

DROPPED = [("source9", "1.0", "a.py", "filter", "generated code", "")]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    documents = many(60)
    return write_corpus(
        tmp_path / "c", {"train": [documents[:20], documents[20:50]], "heldout": [documents[50:]]}, DROPPED
    )


def edited(corpus: Corpus, **changes: Any) -> None:
    path = corpus.folder / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_documents_come_back_by_split(corpus: Corpus) -> None:
    assert list(corpus.documents("train")) == many(60)[:50]
    assert list(corpus.documents("heldout")) == many(60)[50:]
    assert [len(shard) for shard in corpus.shards("train")] == [20, 30]
    assert [(split, len(shard)) for split, shard in corpus.all_shards()] == [
        ("train", 20),
        ("train", 30),
        ("heldout", 10),
    ]
    with pytest.raises(CodegenError, match="has no split test; it has train, heldout"):
        corpus.shards("test")
    corpus.verify()


def test_the_manifest_says_what_is_there(corpus: Corpus) -> None:
    manifest = json.loads((corpus.folder / "corpus.json").read_text())
    train = list(corpus.documents("train"))
    assert manifest["totals"]["train"] == {
        "documents": 50,
        "tokens": sum(len(shard.ids) for shard in corpus.shards("train")),
        "bytes": sum(len(one.content.encode()) for one in train),
    }
    assert manifest["vocabulary"] == {"sha256": vocabulary().hash, "size": 51200, "end": 50256}
    assert manifest["files"] == 61 and corpus.fingerprint == "f" * 64


def test_the_same_corpus_is_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    documents = many(60)
    splits = {"train": [documents[:20], documents[20:50]], "heldout": [documents[50:]]}
    again = write_corpus(tmp_path / "again", splits, DROPPED)
    for path in corpus.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()


def test_an_unfinished_folder_is_no_corpus(corpus: Corpus, tmp_path: Path) -> None:
    (corpus.folder / "corpus.json").unlink()
    for folder in (corpus.folder, tmp_path / "none", corpus.folder / "dropped.parquet"):
        with pytest.raises(CodegenError, match="not a finished corpus; run data build again"):
            Corpus(folder)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "splits": []}', '{"format": 1, "splits": {"train": [{}]}}',
     '{"format": 1, "splits": {"train": 5}}', '{"format": 2, "splits": {}}',
     '{"format": 1, "splits": {"train": [{"name": "../other"}]}}', '{"format": 1, "splits": {}}'],
)  # fmt: skip
def test_a_manifest_that_is_none(corpus: Corpus, text: str) -> None:
    (corpus.folder / "corpus.json").write_text(text)
    with pytest.raises(CodegenError, match=r"corpus\.json: .*; run data build again") as caught:
        Corpus(corpus.folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["train-00000.tokens", "train-00001.parquet", "heldout-00000.tokens", "heldout-00000.parquet", "dropped.parquet"],
)
def test_damage_is_found_wherever_it_is(corpus: Corpus, name: str) -> None:
    path = corpus.folder / name
    whole = path.read_bytes()
    for place in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CodegenError, match=f"{name}: .*; build the corpus again"):
            Corpus(corpus.folder).verify()
    path.unlink()
    with pytest.raises(CodegenError, match=f"{name}: .*; build the corpus again"):
        Corpus(corpus.folder).verify()


def test_a_shard_that_was_exchanged_is_found(corpus: Corpus) -> None:
    (corpus.folder / "train-00000.tokens").replace(corpus.folder / "train-00001.tokens")
    (corpus.folder / "train-00000.parquet").replace(corpus.folder / "train-00001.parquet")
    with pytest.raises(CodegenError, match="build the corpus again"):
        Corpus(corpus.folder).verify()


def test_shards_of_another_vocabulary_are_refused(corpus: Corpus) -> None:
    edited(corpus, vocabulary={"sha256": "ab" * 32, "size": 51200, "end": 50256})
    with pytest.raises(CodegenError, match="was made with vocabulary"):
        Corpus(corpus.folder).shards("train")


def test_documents_are_found_by_the_beginning_of_their_id(corpus: Corpus) -> None:
    ids = [one.id for one in many(60)]
    for number, id in enumerate(ids):
        length = next(n for n in range(1, 65) if sum(other.startswith(id[:n]) for other in ids) == 1)
        place = corpus.find(id[:length])
        assert place.document.id == id and place.split == ("heldout" if number >= 50 else "train")
        if length > 1:
            with pytest.raises(
                CodegenError, match=r"documents have an id that begins with .*; say which by id: \w+ source"
            ):
                corpus.find(id[: length - 1])
    with pytest.raises(CodegenError, match=r"no document has .*; dropped\.parquet lists what was left out"):
        corpus.find("0" * 64)


def test_documents_are_found_by_source_and_path(tmp_path: Path) -> None:
    """Colons may stand in both."""
    names = [("a", "b:c"), ("a:b", "d"), ("https://example.com/x", "m.py")]
    documents = [document(f"{n}", source=source, path=path) for n, (source, path) in enumerate(names)]
    corpus = write_corpus(tmp_path / "c", {"train": [documents], "heldout": []})
    for one in documents:
        assert corpus.find_path(f"{one.source}:{one.path}").document == one
    both = write_corpus(tmp_path / "d", {"train": [[document("x"), document("y")]]})
    with pytest.raises(CodegenError, match=r"2 documents have the name example:example/module\.py; say which"):
        both.find_path("example:example/module.py")


def test_show_says_everything_that_is_known(tmp_path: Path) -> None:
    shown = document(
        "import os\n\temail = '<EMAIL>'\n\x1b[31mred\x07\n",
        source="demo\x1b]0;", stars=1234, redactions=(Redaction("email", 2), Redaction("key", 2)),
    )  # fmt: skip
    corpus = write_corpus(tmp_path / "c", {"train": [[document("first"), shown]], "heldout": []})
    text = show(corpus, shown.id[:10])
    assert text == show(corpus, f"{shown.source}:{shown.path}")
    for said in (
        shown.id, "demo\\x1b]0; 1.0", "example/module.py", "MIT", "file LICENSE, 98% sure: MIT License", "python",
        "2024-05-01", "1,234", "email in line 2, key in line 2", "train, train-00000.tokens, document 1",
    ):  # fmt: skip
        assert said in text
    assert text.endswith("\n\n 1  import os\n!2  \temail = '<EMAIL>'\n 3  \\x1b[31mred\\x07\n")
    assert "\x1b" not in text


@pytest.mark.parametrize("wanted", ["", "zz", "no such name", "\x1b[2J"])
def test_show_needs_a_name(corpus: Corpus, wanted: str) -> None:
    with pytest.raises(
        CodegenError, match="names no document; give the first digits of its id, or SOURCE:PATH"
    ) as caught:
        show(corpus, wanted)
    assert "\x1b" not in str(caught.value)
