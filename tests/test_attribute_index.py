"""An index is whole or none: built in any number of goes, bound to its shards and vocabulary, and small."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from attributed import HERE
from small_corpus import document, many, write_corpus, write_shard

from codegen25.attribute.build import Built, build_index, indexer, left_out
from codegen25.attribute.index import FOLDER, Index
from codegen25.attribute.suffixes import HEADER_BYTES
from codegen25.data.corpus import Corpus
from codegen25.data.engine import Engine
from codegen25.errors import CodegenError
from codegen25.tokenizer import family


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus", {"train": [many(12), many(5)], "heldout": [many(3)]})


def build(corpus: Corpus, out: Path, *, normalized: bool = False) -> Built:
    return build_index(corpus, out, family(), HERE, normalized=normalized)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_processes_make_the_same_files(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "one", normalized=True)
    build_index(corpus, tmp_path / "two", family(), Engine(workers=2), normalized=True)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_an_index_is_small(tmp_path: Path) -> None:
    text = "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(3000))
    built = build(write_corpus(tmp_path / "corpus", {"train": [[document(text)]]}), tmp_path / "index")
    assert built.to_json()["bytes_per_token"] <= 6


def test_what_is_there_is_kept_and_what_is_new_is_added(corpus: Corpus, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "index").made == 3
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "index").glob("*.suffixes")}
    manifest = json.loads((corpus.folder / "corpus.json").read_text())
    manifest["splits"]["train"].append(write_shard(corpus.folder / "train-00002", [document("print('new')\n")]))
    (corpus.folder / "corpus.json").write_text(json.dumps(manifest))
    assert build(Corpus(corpus.folder), tmp_path / "index").made == 1
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "index").glob("*.suffixes")}
    assert before.items() < after.items()
    assert len(Index.open(tmp_path / "index").shards) == 4


def test_shards_that_are_gone_leave_nothing(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "index", normalized=True)
    build_index(corpus, tmp_path / "index", family(), HERE, splits=("heldout",))
    assert sorted(files(tmp_path / "index")) == ["heldout-00000.suffixes", "index.json"]
    assert [shard.split for shard in Index.open(tmp_path / "index").shards] == ["heldout"]


def test_killed_and_resumed(corpus: Corpus, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from codegen25.attribute import build as b; from codegen25.data.corpus import Corpus\n"
        "from codegen25.tokenizer import family; from attributed import HERE\n"
        "def slow(done, total):\n    print(done, flush=True); time.sleep(60 if done == 1 else 0)\n"
        "b.build_index(Corpus(Path(sys.argv[1])), Path(sys.argv[2]), family(), HERE, progress=slow)\n"
    )
    out = tmp_path / "index"
    command = [sys.executable, "-c", program, str(corpus.folder), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != b"1":
            time.sleep(0.01)
        process.kill()
    with pytest.raises(CodegenError, match="not an index"):
        Index.open(out)
    assert len(list(out.glob("*.suffixes"))) == 1
    (out / ".train-00001.suffixes.1").write_bytes(b"half")
    assert build(corpus, out).made == 2
    build(corpus, tmp_path / "anew")
    assert files(out) == files(tmp_path / "anew")


def test_an_index_lies_beside_its_corpus_or_anywhere(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, corpus.folder / FOLDER)
    moved = corpus.folder.rename(tmp_path / "moved")
    assert Index.open(moved).corpus == moved


@pytest.mark.parametrize("at", [0, 9, 13, HEADER_BYTES - 1, HEADER_BYTES, -1])
def test_a_damaged_file_is_made_anew(corpus: Corpus, tmp_path: Path, at: int) -> None:
    build(corpus, tmp_path / "index")
    path = tmp_path / "index" / "train-00000.suffixes"
    whole = path.read_bytes()
    data = bytearray(whole)
    data[at] ^= 1
    path.write_bytes(data)
    assert build(corpus, tmp_path / "index").made == 1
    path.write_bytes(whole[:-1])
    assert build(corpus, tmp_path / "index").made == 1
    assert path.read_bytes() == whole


@pytest.mark.parametrize("length", [0, 100, HEADER_BYTES, -4])
def test_a_truncated_file_is_one_line(corpus: Corpus, tmp_path: Path, length: int) -> None:
    build(corpus, tmp_path / "index")
    path = tmp_path / "index" / "train-00001.suffixes"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CodegenError, match=r"train-00001\.suffixes: .*run attribute index again$"):
        Index.open(tmp_path / "index")


def test_changed_shards_are_one_line(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "index")
    write_shard(corpus.folder / "train-00001", [document("print('changed')\n")])
    with pytest.raises(CodegenError, match=r"train-00001\.tokens: has changed since .* was made; run attribute index"):
        Index.open(tmp_path / "index")
    (corpus.folder / "train-00001.tokens").unlink()
    with pytest.raises(CodegenError, match=r"train-00001\.tokens: cannot be read"):
        Index.open(tmp_path / "index")


def test_a_shard_with_a_wrong_byte_is_not_indexed(corpus: Corpus, tmp_path: Path) -> None:
    path = corpus.folder / "train-00000.tokens"
    data = bytearray(path.read_bytes())
    data[130] ^= 1
    path.write_bytes(data)
    with pytest.raises(CodegenError, match="damaged"):
        build(corpus, tmp_path / "index")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "shards": [1]}', "\0"])
def test_a_manifest_that_is_none_is_one_line(corpus: Corpus, tmp_path: Path, text: str) -> None:
    build(corpus, tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text(text)
    with pytest.raises(CodegenError, match="attribute index again"):
        Index.open(tmp_path / "index")


def test_an_unknown_split_is_one_line(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="has no split validation; it has train, heldout"):
        build_index(corpus, tmp_path / "index", family(), HERE, splits=("validation",))


def test_blank_tokens_begin_no_match(corpus: Corpus, tmp_path: Path) -> None:
    build(corpus, tmp_path / "index")
    flags = left_out(family())
    for shard in Index.open(tmp_path / "index").shards:
        ids = np.array(shard.shard.ids)
        assert shard.tokens.places.size == np.count_nonzero(~flags[ids])
        assert not any(family().token_bytes(int(id)).isspace() for id in ids[shard.tokens.places])


def test_a_larger_shard_than_can_be_sorted_is_refused(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codegen25.attribute.build.MOST_TOKENS", 10)
    task = indexer(str(corpus.folder), str(tmp_path), corpus.vocabulary, left_out(family()))
    with pytest.raises(CodegenError, match="smaller shards"):
        task(json.dumps(["train-00000", "tokens"]))
