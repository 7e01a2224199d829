"""Datasets are read where they lie: in a folder, and from a server that answers as the Hub does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answering import answering

from codegen25.data import tables
from codegen25.data.hub import HubReader, describe
from codegen25.data.readers import check, hash_of
from codegen25.data.source import Entry, File, Source
from codegen25.data.tables import STATEMENT
from codegen25.errors import CodegenError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ISSUES = "github-issues-filtered-structured"
pytest.importorskip("huggingface_hub")


def table(path: Path, rows: list[dict[str, Any]], group: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def code(repository: str, number: int, ending: str = "py") -> dict[str, Any]:
    return {
        "max_stars_repo_path": f"src/file{number}.{ending}", "max_stars_repo_name": repository,
        "max_stars_count": number, "id": str(number), "content": f"value = {number}\n" * 50,
    }  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A folder laid out as StarCoderData is."""
    base = tmp_path / "starcoderdata"
    table(base / "python" / "train-00000-of-00002.parquet", [code("o/one", n) for n in range(35)])
    table(base / "python" / "train-00001-of-00002.parquet", [code("o/two", n) for n in range(5)])
    table(base / "c" / "train.parquet", [code("o/three", n, "c") for n in range(3)])
    table(base / ISSUES / "train.parquet", [{"id": "1", "content": "<issue_start>It fails."}])
    (base / "README.md").write_text("What it is.")
    table(base / ".cache" / "python" / "train.parquet", [code("o/hidden", 1)])
    return base


def entries(reader: HubReader) -> list[Entry]:
    return [entry for part in reader.parts() for entry in reader.entries(part)]


def local(folder: Path) -> HubReader:
    (source,) = describe(f"hub:file://{folder}")
    return HubReader(source, Path())


# -------------------------------------------------------------------------------------------------- a folder, file://


def test_a_dataset_is_read_in_the_order_of_its_files(dataset: Path) -> None:
    reader = local(dataset)
    found = entries(reader)
    assert all(isinstance(one, File) for one in found)
    said = [(one.kind, one.source, one.path, one.stars) for one in found if isinstance(one, File)]
    assert said == [
        *[("code", "o/three", f"src/file{n}.c", n) for n in range(3)],
        ("issue", "", "row-1", None),
        *[("code", "o/one", f"src/file{n}.py", n) for n in range(35)],
        *[("code", "o/two", f"src/file{n}.py", n) for n in range(5)],
    ]
    assert (reader.metadata().kind, reader.metadata().text) == ("dataset", STATEMENT)
    assert reader.license_files() == {}


def test_parts_are_files_and_ranges_of_their_groups(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = local(dataset)
    whole = entries(reader)
    assert reader.parts() == ["0|0:1", "1|0:1", "2|0:4", "3|0:1"]
    monkeypatch.setattr(tables, "PART_BYTES", 1)
    reader = local(dataset)
    assert reader.parts() == ["0|0:1", "1|0:1", "2|0:1", "2|1:2", "2|2:3", "2|3:4", "3|0:1"]
    apart = {part: list(reader.entries(part)) for part in reversed(reader.parts())}
    assert [entry for part in reader.parts() for entry in apart[part]] == whole


def test_a_folder_of_a_dataset_is_one_too(dataset: Path) -> None:
    reader = local(dataset / ISSUES)
    assert [one.kind for one in entries(reader) if isinstance(one, File)] == ["issue"]
    assert reader.metadata().kind == "dataset"
    (source,) = describe(f"hub:file://{dataset}/python/")
    assert (source.kind, source.name, source.version) == ("hub", "python", "")
    assert len(entries(HubReader(source, Path()))) == 40


def test_columns_that_say_nothing_are_not_read(tmp_path: Path) -> None:
    """Of a file whose other column is damaged, all that is wanted comes out."""
    rows = [{"content": f"x = {n}\n", "colour": f"{n:08d}" * 500} for n in range(200)]
    path = tmp_path / "d" / "t.parquet"
    table(path, rows)
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    at = column.data_page_offset
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(data)
    assert len([one for one in entries(local(tmp_path / "d")) if isinstance(one, File)]) == 200


def test_a_lock_knows_a_folder_that_changed(dataset: Path) -> None:
    (source,) = describe(f"hub:file://{dataset}")
    assert source.hash.startswith("sha256:") and hash_of(source, Path()) == source.hash
    check(source, Path())
    moved = dataset.rename(dataset.with_name("moved"))
    (again,) = describe(f"hub:file://{moved}")
    assert again.hash == source.hash
    path = moved / "c" / "train.parquet"
    before = path.read_bytes()
    changes = (
        lambda: table(path, [code("o/three", n, "c") for n in (0, 1, 4)]),
        lambda: path.unlink(),
        lambda: path.rename(path.with_name("other.parquet")),
    )
    for change in changes:
        change()
        with pytest.raises(CodegenError, match="is not what was locked"):
            check(again, Path())
        (path.with_name("other.parquet")).unlink(missing_ok=True)
        path.write_bytes(before)
    check(again, Path())


def test_a_table_of_another_dataset_is_not_covered_by_the_statement(dataset: Path) -> None:
    table(dataset / "python" / "zzz.parquet", [{"content": "x = 1\n", "path": "a.py"}])
    reader = local(dataset)
    with pytest.raises(CodegenError, match=r"zzz\.parquet: not of the dataset that the first table is of"):
        entries(reader)
    table(dataset / "a" / "aaa.parquet", [{"content": "x = 1\n", "path": "a.py"}])
    assert local(dataset).metadata().kind == ""


def test_links_in_circles_end(dataset: Path) -> None:
    before = entries(local(dataset))
    (dataset / "python" / "again").symlink_to(dataset)
    assert entries(local(dataset)) == before


def test_a_table_that_is_linked_itself_is_read(dataset: Path, tmp_path: Path) -> None:
    """As the Hub's own cache has them."""
    snapshot = tmp_path / "snapshot" / "c"
    snapshot.mkdir(parents=True)
    (snapshot / "train.parquet").symlink_to(dataset / "c" / "train.parquet")
    assert len(entries(local(snapshot.parent))) == 3


@pytest.mark.parametrize(
    "name", ["starcoderdata", "", "/a", "a/", "../a", "a/b@", "a/b@x y", "a/b/c@d", "a b/c", "-a/b"]
)
def test_what_names_no_dataset(name: str) -> None:
    with pytest.raises(CodegenError, match="not a dataset's name; write hub:OWNER/DATASET"):
        describe(f"hub:{name}")


@pytest.mark.parametrize("location", ["nothing://a/b", "file:///nowhere/at/all", "hf://datasets", "hf://", "hf://x"])
def test_a_location_that_leads_nowhere_is_one_line(location: str, tmp_path: Path) -> None:
    reader = HubReader(Source("hub", "a", "", location, ""), tmp_path)
    for ask in (reader.parts, reader.metadata, lambda: reader.revision):
        with pytest.raises(CodegenError) as caught:
            ask()
        assert str(caught.value).startswith(location) and "\n" not in str(caught.value)


def test_a_folder_without_tables(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="no Parquet files there"):
        describe(f"hub:file://{tmp_path}")


def test_a_table_that_is_cut_is_one_line(dataset: Path) -> None:
    path = dataset / "c" / "train.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CodegenError, match=r"train\.parquet: not a whole Parquet file[^\n]*$"):
        local(dataset).parts()


def test_what_fails_is_told_from_what_is_damaged(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = local(dataset)

    class Failing(fsspec.implementations.local.LocalFileOpener):  # type: ignore[misc]
        def read(self, length: int = -1) -> bytes:
            if self.tell() < 2000:
                raise ConnectionError("the network is gone")
            return bytes(super().read(length))

    table = reader._table(reader._files[2][2])
    monkeypatch.setattr(fsspec.implementations.local, "LocalFileOpener", Failing)
    with pytest.raises(OSError, match="the network is gone") as caught:
        list(table.entries("0:4"))
    assert caught.value.errno and str(caught.value.filename).endswith("train-00000-of-00002.parquet")


# -------------------------------------------------------------------------------------------- a server, hf://datasets


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's interface as its client asks for; the server's `folder` is the dataset example/code."""

    server: Any

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, folder = self.path.partition("?")[0], self.server.folder
        parts = path.strip("/").split("/")
        self.server.asked.append((self.command, path, self.headers["Range"]))
        if parts[:4] == ["api", "datasets", "example", "code"] and parts[4:5] in ([], ["revision"]):
            if parts[5:] in ([], ["main"], [COMMIT]):
                self._send(json.dumps({"id": "example/code", "sha": COMMIT, "siblings": []}).encode())
            else:
                self._send(b"no such revision", 404, {"X-Error-Code": "RevisionNotFound"})
        elif parts[:6] == ["api", "datasets", "example", "code", "tree", COMMIT]:
            here = folder.joinpath(*parts[6:])
            deep = "recursive=true" in self.path.lower()
            listed = sorted(here.rglob("*") if deep else here.iterdir()) if here.is_dir() else None
            if listed is None:
                self._send(b"no such entry", 404, {"X-Error-Code": "EntryNotFound"})
            else:
                self._send(json.dumps([self._entry(one, folder) for one in listed]).encode())
        elif parts[:5] == ["datasets", "example", "code", "resolve", COMMIT]:
            self._file(folder.joinpath(*parts[5:]))
        else:
            self._send(b"no such repository", 404, {"X-Error-Code": "RepoNotFound"})

    def _entry(self, path: Path, folder: Path) -> dict[str, Any]:
        size = path.stat().st_size if path.is_file() else 0
        kind = "file" if path.is_file() else "directory"
        return {"type": kind, "oid": "0" * 40, "size": size, "path": path.relative_to(folder).as_posix()}

    def _file(self, path: Path) -> None:
        if path.name in self.server.broken:
            self._send(b"", 403)
            return
        data = path.read_bytes()
        first, _, last = (self.headers["Range"] or f"bytes=0-{len(data) - 1}").removeprefix("bytes=").partition("-")
        piece = data[int(first) : int(last) + 1]
        self._send(piece, 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder, server.asked, server.broken = folder, [], set()
    with answering(server):
        yield server


# The client learns where the Hub is when it is imported.
PROGRAM = """
import json, sys
from pathlib import Path
from codegen25.data.hub import HubReader, describe
from codegen25.data.readers import check
from codegen25.errors import CodegenError
try:
    (source,) = describe(sys.argv[1])
    check(source, Path())
    reader = HubReader(source, Path())
    found = [[one.path, one.source, one.data.decode()] for part in reader.parts() for one in reader.entries(part)]
    said = {"source": vars(source), "metadata": reader.metadata().kind, "found": found}
except (CodegenError, OSError) as error:
    said = {"error": str(error), "kind": type(error).__name__}
print(json.dumps(said))
"""


def ask(server: Any, argument: str, tmp_path: Path) -> Any:
    keep = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    here = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(Path(__file__).parent.parent),
    }  # fmt: skip
    command = [sys.executable, "-c", PROGRAM, argument]
    done = subprocess.run(command, capture_output=True, text=True, env=keep | here, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_dataset_of_the_hub_is_streamed(dataset: Path, tmp_path: Path) -> None:
    shutil.rmtree(dataset / ".cache")
    with serving(dataset) as server:
        said = ask(server, "hub:example/code/python", tmp_path)
        asked = list(server.asked)
    location = f"hf://datasets/example/code@{COMMIT}/python"
    wanted = Source("hub", "example/code/python", COMMIT, location, f"git:{COMMIT}")
    assert said["source"] == vars(wanted) and said["metadata"] == "dataset"
    here = [
        [one.path, one.source, one.data.decode()] for one in entries(local(dataset / "python")) if isinstance(one, File)
    ]
    assert said["found"] == here
    assert all(range_ for command, path, range_ in asked if "/resolve/" in path and command == "GET")
    assert not [path for _, path, _ in asked if "/resolve/" in path and "/python/" not in path]
    assert not (tmp_path / "home" / "hub").exists(), "nothing is downloaded to a cache"


@pytest.mark.parametrize(
    "argument, words",
    [
        ("hub:example/nothing", "hub:example/nothing: cannot be reached"),
        ("hub:example/code@none", "hub:example/code: cannot be reached"),
        ("hub:example/code/nowhere", f"hf://datasets/example/code@{COMMIT}/nowhere: no Parquet files there"),
    ],
)
def test_what_the_hub_does_not_have(argument: str, words: str, dataset: Path, tmp_path: Path) -> None:
    with serving(dataset) as server:
        said = ask(server, argument, tmp_path)
    assert said["kind"] == "CodegenError" and said["error"].startswith(words) and "\n" not in said["error"]


def test_a_file_that_the_hub_does_not_give_stops(dataset: Path, tmp_path: Path) -> None:
    with serving(dataset) as server:
        server.broken.add("train-00001-of-00002.parquet")
        said = ask(server, f"hub:example/code@{COMMIT}/python", tmp_path)
    assert said["kind"] in {"CodegenError", "OSError"} and "train-00001-of-00002.parquet" in said["error"]
    assert "\n" not in said["error"]
