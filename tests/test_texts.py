"""Texts of a corpus: what was tokenized comes back, by language and split; what is not whole is refused in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import small_corpus
import tiny
from small_corpus import document

from codegen25.data.corpus import Corpus
from codegen25.data.document import Document
from codegen25.errors import CodegenError
from codegen25.tokenizer import family
from codegen25.train.examples import Corrupted
from codegen25.train.objective import Objective
from codegen25.train.texts import CorpusTexts

CODE = [
    document("x = 1\n", language="python"),
    document("int π = 3;\r\n<mask_1> is text here\n", language="c"),
    document("    y\t=\t2\n\n\n", language="python"),
    document("fn f() {}\n", language="rust"),
]
ISSUE = document("<issue_start>a title<issue_comment>it fails\n", kind="issue", language="python")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    splits = {"train": [CODE[:2], [], [*CODE[2:], ISSUE]], "heldout": [[document("z = 0\n")]]}
    return small_corpus.write_corpus(tmp_path / "corpus", splits)


def content(texts: CorpusTexts) -> list[str]:
    return [texts.entry(number).text for number in range(len(texts))]


def test_texts_come_back(corpus: Corpus) -> None:
    texts = CorpusTexts(corpus.folder, family())
    assert content(texts) == [one.content for one in CODE] + [""]
    assert [texts.entry(n).language for n in range(5)] == ["python", "c", "python", "rust", "python"]
    assert content(CorpusTexts(corpus.folder, family(), "heldout")) == ["z = 0\n"]


def test_sizes_are_those_of_the_ids(corpus: Corpus) -> None:
    texts = CorpusTexts(corpus.folder, family())
    assert list(texts.sizes[:4]) == [len(family().encode(one.content)) + 1 for one in CODE]


def test_languages_are_selected(corpus: Corpus) -> None:
    assert content(CorpusTexts(corpus.folder, family(), languages=["rust", "c"])) == [CODE[1].content, CODE[3].content]
    with pytest.raises(CodegenError, match=r"holds no documents in cobol; build") as caught:
        CorpusTexts(corpus.folder, family(), languages=["cobol"])
    assert "\n" not in str(caught.value)


def test_fingerprints(corpus: Corpus) -> None:
    made = [CorpusTexts(corpus.folder, family()), CorpusTexts(corpus.folder, family(), languages=["c"]),
            CorpusTexts(corpus.folder, family(), "heldout")]  # fmt: skip
    assert len({one.fingerprint() for one in made}) == 3
    assert made[0].fingerprint() == CorpusTexts(corpus.folder, family()).fingerprint()


def test_an_issue_is_learned_by_its_ids(corpus: Corpus) -> None:
    """Its structure is control tokens, which no text could give back."""
    examples = Corrupted(CorpusTexts(corpus.folder, family()), family(), Objective(infill_rate=1.0))
    (ids,) = [examples.example(4, random.Random(0), 64).ids]
    control = family().control
    assert ids[0] == control["<issue_start>"] and control["<issue_comment>"] in ids and ids[-1] == family().eot
    short = examples.example(4, random.Random(0), 5)
    assert len(short.ids) == 5 and short.left_out > 0


def test_what_stands_before_a_document_is_kept_whole(tmp_path: Path) -> None:
    """As `--metadata-prefix` writes it: control tokens, words, and a line break."""
    from codegen25.data.shards import ShardWriter
    from codegen25.train.texts import Entry

    folder, one = tmp_path / "corpus", document("".join(f"a_{n} = {n}\n" for n in range(400)))
    control = family().control
    head = [control["<reponame>"], *family().encode("me/mine"), control["<gh_stars>"], *family().encode("10-100\n")]
    folder.mkdir()
    with ShardWriter(folder / "train-00000", small_corpus.vocabulary()) as writer:
        writer.add(one, np.array(head + family().encode(one.content), np.uint16))
        entry = writer.close()
    made = small_corpus.Settings(small_corpus.vocabulary())
    from codegen25.data.corpus import write_manifest

    write_manifest(folder, made, "f" * 64, {"train": [entry]}, files=1)  # type: ignore[arg-type]
    texts = CorpusTexts(folder, family())
    assert texts.entry(0) == Entry(one.content, "python", tuple(head))
    examples = Corrupted(texts, family(), Objective(infill_rate=1.0), fill=128)
    assert len(examples) > 10
    for number in range(len(examples)):
        example = examples.example(number, random.Random(number), 128)
        assert example.ids[: len(head)] == head and len(example.ids) == len(example.learned) <= 128


def test_more_shards_than_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen25.train.texts.OPEN_SHARDS", 2)
    shards = [[document(f"x = {n}\n")] for n in range(7)]
    texts = CorpusTexts(small_corpus.write_corpus(tmp_path / "c", {"train": shards}).folder, family())
    for _ in range(2):
        assert content(texts) == [one.content for shard in shards for one in shard]


# --- bad input ---


def refused(folder: Path, match: str) -> None:
    with pytest.raises(CodegenError, match=match) as caught:
        CorpusTexts(folder, family())
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_another_vocabulary(corpus: Corpus) -> None:
    with pytest.raises(CodegenError, match=r"built with another vocabulary.*--tokenizer") as caught:
        CorpusTexts(corpus.folder, tiny.tokenizer())
    assert "\n" not in str(caught.value)


def test_an_empty_corpus(tmp_path: Path) -> None:
    empty: list[Document] = []
    refused(small_corpus.write_corpus(tmp_path / "c", {"train": [empty]}).folder, "holds no documents; build")
    refused(small_corpus.write_corpus(tmp_path / "d", {"train": []}).folder, "holds no documents; build")
    refused(small_corpus.write_corpus(tmp_path / "e", {"heldout": [CODE]}).folder, "has no split train; it has heldout")


def test_no_corpus(tmp_path: Path) -> None:
    refused(tmp_path, "not a finished corpus")


@pytest.mark.parametrize("ending", ["tokens", "parquet"])
def test_a_missing_shard(corpus: Corpus, ending: str) -> None:
    (corpus.folder / f"train-00002.{ending}").unlink()
    refused(corpus.folder, f"train-00002.{ending}")


@pytest.mark.parametrize("ending", ["tokens", "parquet"])
def test_a_shard_cut_short(corpus: Corpus, ending: str) -> None:
    path = corpus.folder / f"train-00000.{ending}"
    path.write_bytes(path.read_bytes()[:-30])
    refused(corpus.folder, f"train-00000.{ending}")


def test_a_damaged_manifest(corpus: Corpus) -> None:
    (corpus.folder / "corpus.json").write_text(json.dumps({"format": 1}))
    refused(corpus.folder, "corpus.json")
