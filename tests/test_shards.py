"""A shard gives back what was written into it, or says in one line what is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_corpus import document, many, tokenizer, vocabulary, write_shard

from codegen25.data import table
from codegen25.data.document import Document, Evidence, Redaction
from codegen25.data.shards import HEADER_BYTES, Shard, ShardWriter, file_sha256
from codegen25.errors import CodegenError
from codegen25.tokenizer import family

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
number = st.integers(0, 2**40)
documents = st.builds(
    document,
    text,
    source=text, version=text, path=text, license=text, language=text, date=text,
    evidence=st.builds(Evidence, text, text, text, st.floats(0, 1)),
    kind=st.sampled_from(["code", "issue", "commit", "jupyter"]),
    stars=st.none() | number,
    redactions=st.lists(st.builds(Redaction, text, number), max_size=3).map(tuple),
)  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    write_shard(tmp_path / "train-00000", many(40))
    return Shard(tmp_path / "train-00000.tokens")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(documents, max_size=12), group=st.integers(1, 5))
def test_documents_come_back(written: list[Document], group: int, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "GROUP_ROWS", group)
        entry = write_shard(tmp_path / "x", written)
    shard = Shard(tmp_path / "x.tokens", vocabulary().hash)
    shard.verify()
    assert list(shard) == written
    assert [shard.document(n) for n in reversed(range(len(written)))] == written[::-1]
    for number, one in enumerate(written):
        ids, _ = tokenizer().encode_batch([one.content], [one.kind])
        assert shard.document_ids(number).tolist() == [*ids.tolist(), 50256]
    assert entry == {
        "name": "x", "documents": len(written), "tokens": len(shard.ids),
        "bytes": sum(len(one.content.encode()) for one in written),
        "sha256": file_sha256(tmp_path / "x.tokens"), "table_sha256": file_sha256(tmp_path / "x.parquet"),
    }  # fmt: skip
    assert shard.table.column("tokens").to_pylist() == np.diff(shard.ends, prepend=np.uint64(0)).tolist()
    assert shard.table.column("lines").to_pylist() == [
        len((d.content + ".").split("\n")) - d.content.endswith("\n") - (not d.content) for d in written
    ]


def test_locate_is_what_counting_finds(shard: Shard) -> None:
    places = [(n, offset) for n in range(len(shard)) for offset in range(len(shard.document_ids(n)))]
    assert [shard.locate(position) for position in range(len(shard.ids))] == places
    for outside in (-1, len(shard.ids)):
        with pytest.raises(IndexError):
            shard.locate(outside)
    with pytest.raises(IndexError):
        shard.document(40)


def test_ids_are_where_the_format_says(shard: Shard) -> None:
    """A reader that knows the format's description and nothing of ours."""
    data = shard.path.read_bytes()
    documents, tokens = int.from_bytes(data[48:56], "little"), int.from_bytes(data[56:64], "little")
    ids = np.frombuffer(data, "<u2", tokens, 128)
    ends = np.frombuffer(data, "<u8", documents, len(data) - 8 * documents)
    assert data[:8] == b"CG25TOKS" and data[16:48].hex() == vocabulary().hash and len(data) % 8 == 0
    assert family().decode(ids[: ends[0]].tolist()) == many(1)[0].content + "<|endoftext|>"
    assert ends.tolist() == shard.ends.tolist() and ids.tolist() == shard.ids.tolist()
    assert isinstance(shard.ids, np.memmap) and not shard.ids.flags.writeable


def test_the_same_documents_are_the_same_bytes(tmp_path: Path) -> None:
    write_shard(tmp_path / "a", many(99))
    write_shard(tmp_path / "b", many(99))
    for ending in ("tokens", "parquet"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert names(tmp_path) == ["a.parquet", "a.tokens", "b.parquet", "b.tokens"]


def test_the_table_is_read_without_texts_and_one_text_without_the_others(tmp_path: Path) -> None:
    large = [document(f"{n}" * 600_000) for n in range(10)]
    write_shard(tmp_path / "x", large)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups >= 3
    assert Shard(tmp_path / "x.tokens").document(7) == large[7]
    assert "content" not in Shard(tmp_path / "x.tokens").table.column_names


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path / "x", many(5))
    path = tmp_path / "x.tokens"
    whole = path.read_bytes()
    assert len(whole) < 1_500
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        with pytest.raises(CodegenError, match=r"x\.tokens: .*; build the corpus again"):
            Shard(path).verify()
    path.write_bytes(whole)
    Shard(path).verify()


@pytest.mark.parametrize("keep", [0, 1, 8, 63, 127, 128, -1, -8, -200])
def test_cut_off(shard: Shard, keep: int) -> None:
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[:keep])
    with pytest.raises(CodegenError, match="build the corpus again"):
        Shard(shard.path)
    shard.path.write_bytes(whole + b"\0")
    with pytest.raises(CodegenError, match=f"has {len(whole) + 1} bytes instead of {len(whole)}"):
        Shard(shard.path)


def _patched(shard: Shard, at: int, data: bytes) -> Path:
    whole = shard.path.read_bytes()
    shard.path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    return shard.path


def _wide(value: int) -> bytes:
    return value.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0, b"PAR1", "is no shard of tokens"),
        (8, b"\x09", "has format 9, and 1 is known here"),
        (48, _wide(2**63), "bytes instead of"),
        (56, _wide(2**64 - 1), "bytes instead of"),
        (-8, _wide(2**64 - 1), "do not increase to its last token"),
        (-16, _wide(0), "do not increase to its last token"),
        (-8, _wide(0), "do not increase to its last token"),
    ],
)
def test_hostile_bytes_are_one_line(shard: Shard, at: int, data: bytes, message: str) -> None:
    size = shard.path.stat().st_size
    with pytest.raises(CodegenError, match=message) as caught:
        Shard(_patched(shard, at % size, data))
    assert "\n" not in str(caught.value)


def test_ids_beyond_the_vocabulary_are_found_though_the_checksum_is_right(tmp_path: Path) -> None:
    small = type(vocabulary())(vocabulary().tokenizer_json, 51200, vocabulary().hash, 60_000)
    with ShardWriter(tmp_path / "x", small) as writer:
        writer.add(document("x"), np.array([1, 2], np.uint16))
        writer.close()
    with pytest.raises(CodegenError, match="has ids beyond its vocabulary of 51200"):
        Shard(tmp_path / "x.tokens").verify()


def test_another_vocabulary(shard: Shard) -> None:
    Shard(shard.path, vocabulary().hash)
    with pytest.raises(CodegenError, match=r"was made with vocabulary .*, not abcabc"):
        Shard(shard.path, "abc" * 20)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tokens", tmp_path):
        with pytest.raises(CodegenError, match="cannot be read as a shard"):
            Shard(path)


def test_a_table_that_is_none(shard: Shard, tmp_path: Path) -> None:
    parquet = shard.path.with_suffix(".parquet")
    whole = parquet.read_bytes()
    other: dict[str, Any] = {"id": ["x"]}
    for data in (b"", b"PAR1", whole[:-100], whole[: len(whole) // 2] + b"PAR1"):
        parquet.write_bytes(data)
        with pytest.raises(CodegenError, match="not a table of documents"):
            Shard(shard.path).document(0)
    pq.write_table(pa.table(other), parquet)
    with pytest.raises(CodegenError, match="has other columns"):
        Shard(shard.path).document(0)
    write_shard(tmp_path / "less", many(39))
    (tmp_path / "less.parquet").replace(parquet)
    with pytest.raises(CodegenError, match="has 40 documents, and its table 39"):
        Shard(shard.path).document(0)
    parquet.unlink()
    with pytest.raises(CodegenError, match="not a table of documents"):
        Shard(shard.path).document(0)


def test_a_damaged_table_is_one_line(shard: Shard) -> None:
    """Whatever a flipped byte does, it is an error of ours or an unharmed document, never a crash."""
    parquet = shard.path.with_suffix(".parquet")
    whole = parquet.read_bytes()
    refused = []
    for place in range(4, len(whole), 37):
        parquet.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = list(Shard(shard.path))
        except CodegenError as error:
            refused.append(str(error))
        else:
            assert len(found) == 40
    assert len(refused) > 100 and not any("\n" in line for line in refused)


def test_left_unclosed_it_leaves_nothing(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "x", vocabulary()) as writer:
        writer.add(document("x"), np.array([1], np.uint16))
        assert len(names(tmp_path)) == 2 and all(name.startswith(".") for name in names(tmp_path))
    assert names(tmp_path) == []


# Forks a writer that is killed at each of its steps in turn, the last of which is none.
KILLED = """
import os, signal, sys
from pathlib import Path
from small_corpus import many, tokenizer, write_shard
documents = many(2)
tokenizer().encode_batch(["loads what it needs"])
def write(folder, mark):
    calls = 0
    def count(frame, event, argument):
        nonlocal calls
        caller = {"call": frame.f_back, "c_call": frame}.get(event)
        if caller and caller.f_code.co_filename.endswith("shards.py"):
            calls += 1
            if calls == mark:
                os.kill(os.getpid(), signal.SIGKILL)
    folder.mkdir()
    sys.setprofile(count)
    write_shard(folder / "x", documents)
    os._exit(0)
mark = status = -1
while status:
    mark += 1
    child = os.fork()
    if not child:
        write(Path(sys.argv[1]) / f"{mark + 1}", mark + 1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def test_killed_between_any_two_steps_it_is_whole_or_has_no_name(tmp_path: Path) -> None:
    result = _run(KILLED, str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    marks = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    left = [{path.name: path.read_bytes() for path in mark.iterdir() if path.name[0] != "."} for mark in marks]
    assert len(left) > 40 and set(left[-1]) == {"x.tokens", "x.parquet"}
    assert all(named.items() <= left[-1].items() for named in left)
    assert {" ".join(sorted(named)) for named in left} == {"", "x.parquet", "x.parquet x.tokens"}


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """Files may not grow beyond a bound, which a write meets as it meets a full disk."""
    code = """
import resource, signal, sys
from pathlib import Path
from small_corpus import many, write_shard
documents = many(2_000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    write_shard(Path(sys.argv[1]) / "x", documents)
except OSError as error:
    print("OSError")
"""
    for bound in (0, 20_000, 40_000):
        result = _run(code, str(tmp_path), f"{bound}")
        assert (result.stdout, result.stderr) == ("OSError\n", "")
        assert names(tmp_path) == []


def test_the_header_is_aligned() -> None:
    assert HEADER_BYTES % 64 == 0
