"""Folders as sources: every file that is one, nothing that is not, and what they say of themselves."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from codegen25.data.folders import Folder
from codegen25.data.manifests import normalized, project_metadata
from codegen25.data.source import MAX_BYTES, Entry, File, Refused
from codegen25.errors import CodegenError


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def entries(root: Path) -> list[Entry]:
    return list(Folder(root).entries(""))


def refused(root: Path) -> list[tuple[str, str]]:
    return [(one.path, one.reason) for one in entries(root) if isinstance(one, Refused)]


def test_files_come_sorted_by_path(tmp_path: Path) -> None:
    write(tmp_path, {"b/x.py": "1", "b.py": "2", "a/y/z.py": "3", "B": b"\xff\0", "a/é.py": ""})
    assert entries(tmp_path) == [
        File("B", b"\xff\0"), File("a/y/z.py", b"3"), File("a/é.py", b""), File("b.py", b"2"), File("b/x.py", b"1"),
    ]  # fmt: skip
    assert Folder(tmp_path).parts() == [""]


def test_ignored_files_and_git_itself_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".gitignore": "*.log\nbuild/\n", "a.py": "", "a.log": "", "build/b.py": "", "sub/.gitignore": "!keep.log\n",
            "sub/keep.log": "", "sub/drop.log": "", ".git/config": "", "sub/.git": "gitdir: elsewhere",
        },
    )  # fmt: skip
    assert [one.path for one in entries(tmp_path)] == [".gitignore", "a.py", "sub/.gitignore", "sub/keep.log"]


def test_a_linked_gitignore_says_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"rules": "*.py\n", "code/a.py": ""})
    (tmp_path / "code" / ".gitignore").symlink_to(tmp_path / "rules")
    assert [one.path for one in entries(tmp_path / "code")] == [".gitignore", "a.py"]


def test_links_pipes_sockets_and_loops_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "root", {"a.py": "a"})
    write(tmp_path / "outside", {"secret.py": "secret"})
    (root / "file").symlink_to(tmp_path / "outside" / "secret.py")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "gone").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    links = [(name, "link") for name in ("file", "folder", "gone", "loop")]
    assert refused(root) == [*links, ("pipe", "not a file"), ("self", "link"), ("socket", "not a file")]
    assert [one for one in entries(root) if isinstance(one, File)] == [File("a.py", b"a")]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    write(tmp_path / "root", {"a.py": "a"})
    (tmp_path / "link").symlink_to("root")
    assert entries(tmp_path / "link") == [File("a.py", b"a")]


def test_of_a_huge_file_only_its_beginning_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2 << 30)
    assert [len(one.data) for one in entries(tmp_path) if isinstance(one, File)] == [MAX_BYTES + 1]
    (tmp_path / "exact").write_bytes(b"x" * MAX_BYTES)
    assert [len(one.data) for one in entries(tmp_path) if isinstance(one, File)] == [MAX_BYTES, MAX_BYTES + 1]


def test_a_file_that_goes_between_listing_and_reading_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "", "b.py": "", "c.py": "", "LICENSE": "MIT"})
    reader = Folder(tmp_path)
    assert reader.license_files() == {"LICENSE": "MIT"}
    (tmp_path / "b.py").unlink()
    (tmp_path / "c.py").unlink()
    (tmp_path / "c.py").symlink_to("a.py")
    found = [(one.path, one.reason) for one in reader.entries("") if isinstance(one, Refused)]
    assert found == [("b.py", "unreadable"), ("c.py", "unreadable")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "", "sub/b.py": ""})
    (tmp_path / "a.py").chmod(0)
    (tmp_path / "sub").chmod(0)
    try:
        assert refused(tmp_path) == [("a.py", "unreadable"), ("sub", "unreadable")]
    finally:
        (tmp_path / "sub").chmod(0o700)


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    for name in (b"\xff.py", b"\xe9"):
        (tmp_path / os.fsdecode(name)).mkdir()
    write(tmp_path, {"a.py": ""})
    (tmp_path / os.fsdecode(b"\xff.py") / "inside.py").write_text("x")
    assert refused(tmp_path) == [("\\xe9", "name is not UTF-8"), ("\\xff.py", "name is not UTF-8")]


def test_very_deep_folders(tmp_path: Path) -> None:
    """Deeper than Python nests calls, and so than it removes folders."""
    (tmp_path / "d").mkdir()
    deep = write(tmp_path / "/".join(["d"] * 400), {"a.py": "deep"})
    for _ in range(2):
        (deep / "x").mkdir()
        (tmp_path / "d").rename(tmp_path / "moved")
        write(tmp_path / "/".join(["d"] * 400), {})
        deep = tmp_path / "/".join(["d"] * 400) / "d"
        (tmp_path / "moved").rename(deep)
    assert [len(one.path.split("/")) for one in entries(tmp_path) if isinstance(one, File)] == [1201]
    for _ in range(3):
        (tmp_path / "/".join(["d"] * 400)).rename(tmp_path / "moved")
        shutil.rmtree(tmp_path / "d")
        (tmp_path / "moved").rename(tmp_path / "d")


def test_no_such_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", write(tmp_path, {"file": ""}) / "file"):
        with pytest.raises(CodegenError, match="no such folder"):
            Folder(path)


def test_the_hash_is_of_what_is_read_and_of_nothing_else(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"a.py": "a", "b/c.py": "c", ".gitignore": "*.log\n"})
    other = write(tmp_path / "other", {".gitignore": "*.log\n", "b/c.py": "c", "a.py": "a", "x.log": "ignored"})
    os.utime(other / "a.py", (0, 0))
    (other / "a.py").chmod(0o755)
    assert Folder(one).listing_hash() == Folder(other).listing_hash()
    seen = {Folder(one).listing_hash()}
    for name, data in (("a.py", "b"), ("new.py", ""), ("a.py\nb", ""), ("b/c.py", "cc")):
        write(other, {name: data})
        seen.add(Folder(other).listing_hash())
    (other / "link").symlink_to("a.py")
    seen.add(Folder(other).listing_hash())
    assert len(seen) == 6 and all(len(one) == 71 and one.startswith("sha256:") for one in seen)


def test_licence_files_by_path(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"LICENSE": b"MIT \xff", "sub/COPYING.txt": "BSD", "a.py": "", "licenses/x.py": "", "big/LICENSE": "x"},
    )
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "LICENSE").symlink_to("/etc/hostname")
    (tmp_path / "big" / "LICENSE").write_bytes(b"x" * (MAX_BYTES + 5))
    found = Folder(tmp_path).license_files()
    assert {name: text[:9] for name, text in found.items()} == {
        "LICENSE": "MIT \ufffd", "big/LICENSE": "x" * 9, "sub/COPYING.txt": "BSD",
    }  # fmt: skip
    assert len(found["big/LICENSE"]) == MAX_BYTES


PYPROJECT = '[project]\nname = "a"\nlicense = "MIT"\n'


@pytest.mark.parametrize(
    ("files", "kind", "file", "text"),
    [
        ({}, "", "", ""), ({"sub/package.json": "{}"}, "", "", ""),
        ({"package.json": "{}"}, "npm", "package.json", "{}"),
        ({"PKG-INFO": "Name: a\n", "pyproject.toml": PYPROJECT}, "python", "PKG-INFO", "Name: a\n"),
        ({"pyproject.toml": PYPROJECT, "package.json": "{}"}, "python", "pyproject.toml", "License-Expression: MIT\n"),
        ({"pyproject.toml": "[project]\n", "package.json": "{}"}, "npm", "package.json", "{}"),
    ],
)  # fmt: skip
def test_what_a_folder_says_of_itself(
    tmp_path: Path, files: dict[str, str | bytes], kind: str, file: str, text: str
) -> None:
    said = Folder(write(tmp_path / "x", files)).metadata()
    assert (said.kind, said.file, said.text) == (kind, file, text)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('license = "MIT OR Apache-2.0"', "License-Expression: MIT OR Apache-2.0\n"),
        ('license = {text = "MIT"}', "License: MIT\n"), ('license = {file = "LICENSE"}', ""), ("license = 3", ""),
        ('license = {text = "MIT\\nClassifier: forged"}', "License: MIT\n        Classifier: forged\n"),
        ('license = "MIT\\nLicense: forged"', "License-Expression: MIT License: forged\n"),
        ('classifiers = ["License :: OSI Approved :: MIT License", "Typing :: Typed", 3]',
         "Classifier: License :: OSI Approved :: MIT License\n"),
        ('classifiers = "License :: x"', ""), ("= broken", ""), ("x = " + "[" * 50_000, ""),
    ],
)  # fmt: skip
def test_pyproject_as_metadata(table: str, said: str) -> None:
    assert project_metadata(f"[project]\n{table}\n") == said


def test_pyproject_without_a_project() -> None:
    assert (
        project_metadata("") == project_metadata("project = 3") == project_metadata("[tool.x]\nlicense = 'MIT'") == ""
    )


def test_names_are_normalised() -> None:
    assert normalized("Some__Thing.-x") == "some-thing-x"
