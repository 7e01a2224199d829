"""What a person names, as sources that a lock can hold and that open again as the same bytes."""

import io
import os
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dulwich import porcelain

from codegen25.data.describe import describe
from codegen25.data.lock import read_lock, write_lock
from codegen25.data.readers import check, open_source
from codegen25.data.source import Entry, File, Source
from codegen25.errors import CodegenError

ME = b"Example <example@example.com>"


def wheel(folder: Path, file: str = "wrong_name-9-py3-none-any.whl", name: str = "Some.Thing") -> Path:
    with zipfile.ZipFile(folder / file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.py", (2024, 5, 6, 0, 0, 0)), "a = 1\n")
        archive.writestr("thing-1.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n")
        archive.writestr(zipfile.ZipInfo("thing-1.dist-info/RECORD", (1980, 1, 1, 0, 0, 0)), "")
    return folder / file


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"top/{name}")
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return path


def sdist(folder: Path) -> Path:
    return tar(folder / "x.tar.gz", {"PKG-INFO": b"Name: other\nVersion: 2\n", "b.py": b"b = 2\n"})


def npm(folder: Path) -> Path:
    return tar(folder / "x.tgz", {"package.json": b'{"name": "@s/n", "version": "3.0.0"}', "c.js": b"let c\n"})


def table(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"id": "1", "content": "x = 1\n", "max_stars_repo_path": "x.py", "max_stars_repo_name": "o/r"}
    pq.write_table(pa.Table.from_pylist([{**row, "max_stars_count": 3}]), path)
    return path


def repository(root: Path, files: dict[str, str]) -> str:
    root.mkdir(exist_ok=True)
    if not (root / ".git").exists():
        porcelain.init(root)
    for name, text in files.items():
        (root / name).write_text(text)
    porcelain.add(root, paths=[str(root / name) for name in files])
    return porcelain.commit(root, message=b"x", author=ME, committer=ME).decode()


def one(argument: str | Path) -> Source:
    found = describe(str(argument))
    assert len(found) == 1
    return found[0]


def files(source: Source) -> list[Entry]:
    reader = open_source(source, Path("/nowhere"))  # absolute locations do not need a root
    return [entry for part in reader.parts() for entry in reader.entries(part)]


def test_archives_by_their_own_names(tmp_path: Path) -> None:
    described = [one(make(tmp_path)) for make in (wheel, sdist, npm)]
    assert [(s.kind, s.name, s.version) for s in described] == [
        ("wheel", "some-thing", "1.0"), ("sdist", "other", "2"), ("npm", "@s/n", "3.0.0"),
    ]  # fmt: skip
    assert described[1].date == "2023-11-14" and described[2].date == ""
    assert File("a.py", b"a = 1\n") in files(described[0]) and File("b.py", b"b = 2\n") in files(described[1])
    assert described[0].hash.startswith("sha256:") and len(described[0].hash) == 71


def test_a_folder_of_archives(tmp_path: Path) -> None:
    wheel(tmp_path), npm(tmp_path), sdist(tmp_path)
    (tmp_path / "README.md").write_text("what they are")
    (tmp_path / ".cache").mkdir()
    assert sorted(source.name for source in describe(str(tmp_path))) == ["@s/n", "other", "some-thing"]
    (tmp_path / "program.py").write_text("x = 1\n")  # now it is a project with archives in it
    assert one(tmp_path).kind == "folder"


def test_tables_and_folders_of_them(tmp_path: Path) -> None:
    single = one(table(tmp_path / "data" / "python" / "train.parquet"))
    assert (single.kind, single.name) == ("parquet", "python/train.parquet") and len(files(single)) == 1
    table(tmp_path / "data" / "java" / "train.parquet")
    (tmp_path / "data" / "README.md").write_text("of a dataset")
    assert [s.name for s in describe(str(tmp_path / "data"))] == [
        "data/java/train.parquet",
        "data/python/train.parquet",
    ]
    (tmp_path / "rows.jsonl").write_text('{"content": "x = 1", "path": "x.py"}\n')
    assert one(tmp_path / "rows.jsonl").kind == "jsonl"


def test_a_plain_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "a.py").write_text("a")
    monkeypatch.chdir(root)
    source = one(".")
    assert (source.kind, source.name, source.version, source.date) == ("folder", "project", "", "")
    assert Path(source.location) == root and files(source) == [File("a.py", b"a")]


def test_a_repository_at_its_head_or_at_a_commit(tmp_path: Path) -> None:
    first = repository(tmp_path / "r", {"a.py": "1"})
    porcelain.tag_create(tmp_path / "r", b"v1")
    second = repository(tmp_path / "r", {"a.py": "2"})
    head, tag = one(tmp_path / "r"), one(f"{tmp_path / 'r'}@v1")
    assert (head.version, head.hash) == (second, f"git:{second}") and files(head) == [File("a.py", b"2")]
    assert (tag.version, tag.hash, tag.name) == (first, f"git:{first}", "r") and files(tag) == [File("a.py", b"1")]
    assert head.date.endswith("Z") and len(head.date) == 20
    porcelain.clone(str(tmp_path / "r"), tmp_path / "bare.git", bare=True)
    assert one(tmp_path / "bare.git").version == second
    (tmp_path / "x@y").mkdir()
    assert one(tmp_path / "x@y").kind == "folder"
    with pytest.raises(CodegenError, match="has no commit v2"):
        describe(f"{tmp_path / 'r'}@v2")


def test_what_is_installed() -> None:
    library, package = one("stdlib"), one("site:PyTest")
    assert (library.kind, library.name) == ("installed", "python-stdlib")
    assert library.version == ".".join(map(str, sys.version_info[:3])) and library.location == ""
    assert (package.kind, package.name) == ("installed", "pytest") and len(files(package)) > 3
    for source in (library, package):
        check(source, Path())
    with pytest.raises(CodegenError, match="site:no-such-thing: not installed"):
        describe("site:no-such-thing")


def test_described_sources_survive_a_lock(tmp_path: Path) -> None:
    repository(tmp_path / "r", {"a.py": "1"})
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "x.py").write_text("x")
    found = [one(path) for path in (wheel(tmp_path), sdist(tmp_path), npm(tmp_path), tmp_path / "r", tmp_path / "f")]
    write_lock(tmp_path / "lock.json", found)
    again = read_lock(tmp_path / "lock.json")
    assert sorted(again, key=lambda s: s.name) == sorted(found, key=lambda s: s.name)
    for source in again:
        check(source, tmp_path)
        assert files(source)


@pytest.mark.parametrize("kind", ["wheel", "folder", "parquet", "git"])
def test_other_bytes_than_those_of_the_lock_are_told(tmp_path: Path, kind: str) -> None:
    if kind == "wheel":
        source = one(wheel(tmp_path))
        wheel(tmp_path, name="another")
    elif kind == "parquet":
        source = one(table(tmp_path / "t.parquet"))
        with (tmp_path / "t.parquet").open("ab") as file:
            file.write(b"\0")
    elif kind == "folder":
        (tmp_path / "f").mkdir()
        source = one(tmp_path / "f")
        (tmp_path / "f" / "new.py").write_text("")
    else:
        repository(tmp_path / "r", {"a.py": "1"})
        source = replace(one(tmp_path / "r"), hash="git:" + "0" * 40)
    with pytest.raises(CodegenError, match=r"is not what was locked .* lock it again"):
        check(source, Path())


@pytest.mark.parametrize("make", ["missing", "text", "pipe", "broken", "nameless", "at nothing"])
def test_what_is_no_source_is_one_line(tmp_path: Path, make: str) -> None:
    path = tmp_path / {"text": "notes.txt", "broken": "a.whl", "nameless": "b.tgz"}.get(make, make)
    if make == "pipe":
        path = path.with_suffix(".whl")
        os.mkfifo(path)
    elif make == "nameless":
        tar(path, {"a.js": b""})
    elif make in {"text", "broken"}:
        path.write_text("no archive")
    argument = f"{tmp_path}@" if make == "at nothing" else str(path)
    with pytest.raises(CodegenError) as raised:
        describe(argument)
    assert "\n" not in str(raised.value) and argument in str(raised.value)


def test_loops_of_links_are_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    assert one(tmp_path).kind == "folder"
