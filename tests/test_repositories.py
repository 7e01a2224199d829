"""Commits as sources: what git itself lists, from loose and packed objects, and repositories made to do harm."""

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from dulwich import porcelain
from dulwich.objects import Blob, Commit, Tree
from dulwich.repo import Repo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegen25.data import repositories
from codegen25.data.repositories import GitCommit, remote_name
from codegen25.data.source import MAX_BYTES, Entry, File, Refused
from codegen25.errors import CodegenError

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="made by git")
ME = b"Example <example@example.com>"
WHEN = 1_700_000_000


def commit(root: Path, files: dict[str, bytes]) -> str:
    """Write the files and commit all of the folder; the commit's name."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    if not (root / ".git").exists():
        porcelain.init(root)
    with Repo(str(root)) as repo:
        worktree = repo.get_worktree()
        worktree.stage([os.fsencode(name) for name in files])
        made = worktree.commit(
            message=b"x", author=ME, committer=ME, commit_timestamp=WHEN, commit_timezone=3600, author_timestamp=1,
            author_timezone=0,
        )  # fmt: skip
    return made.decode()


def object_commit(root: Path, entries: list[tuple[bytes, int, bytes]], date: int = WHEN) -> None:
    """A repository whose one commit has exactly these entries: name, mode, content (or the name of a tree)."""
    with Repo.init(str(root), mkdir=True) as repo:
        top = Tree()
        for name, mode, data in entries:
            if stat.S_ISDIR(mode) or mode == 0o160000:
                top.add(name, mode, data)  # type: ignore[arg-type]
            else:
                blob = Blob.from_string(data)
                repo.object_store.add_object(blob)
                top.add(name, mode, blob.id)
        repo.object_store.add_object(top)
        commit_tree(repo, top.id, date)


def commit_tree(repo: Repo, tree: bytes, date: int = WHEN) -> None:
    made = Commit()
    made.tree = tree
    made.author = made.committer = ME
    made.author_time = made.commit_time = date
    made.author_timezone = made.commit_timezone = 0
    made.message = b"x"
    repo.object_store.add_object(made)
    repo.refs[b"HEAD"] = made.id  # type: ignore[index]


def entries(root: Path, name: str = "HEAD") -> list[Entry]:
    return list(GitCommit(root, name).entries(""))


def refused(found: list[Entry]) -> list[tuple[str, str]]:
    return [(one.path, one.reason) for one in found if isinstance(one, Refused)]


def git(root: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "protocol.file.allow=always"]
    made = subprocess.run(["git", *settings, "-C", str(root), *arguments], check=True, capture_output=True, text=True)
    return made.stdout


def test_a_commit_is_read_not_the_work_tree(tmp_path: Path) -> None:
    first = commit(tmp_path, {"a.py": b"old", "b/c.py": b"c", "LICENSE": b"MIT", "package.json": b"{}"})
    second = commit(tmp_path, {"a.py": b"new"})
    (tmp_path / "a.py").write_text("not committed")
    (tmp_path / "new.py").write_text("not committed")
    found = GitCommit(tmp_path)
    assert [one.path for one in found.entries("")] == ["LICENSE", "a.py", "b/c.py", "package.json"]
    assert File("a.py", b"new") in entries(tmp_path) and File("a.py", b"old") in entries(tmp_path, first)
    assert (found.commit, found.date) == (second, "2023-11-14T22:13:20Z")
    assert found.license_files() == {"LICENSE": "MIT"} and found.metadata().kind == "npm" and found.parts() == [""]


def test_commits_by_tag_branch_and_short_name(tmp_path: Path) -> None:
    first = commit(tmp_path, {"a.py": b"1"})
    porcelain.tag_create(tmp_path, b"v1", author=ME, annotated=True, message=b"x")
    porcelain.tag_create(tmp_path, b"light")
    porcelain.branch_create(tmp_path, "side")
    commit(tmp_path, {"a.py": b"2"})
    for name in ("v1", "light", "side", first, first[:8], "refs/tags/v1"):
        assert GitCommit(tmp_path, name).commit == first
    for name in ("gone", "f" * 40, "v1:a.py", "..", "\udcff", "a\0b"):
        with pytest.raises(CodegenError, match=r"has no commit|cannot be read"):
            GitCommit(tmp_path, name)


def test_what_is_ignored_is_left_out_though_it_was_committed(tmp_path: Path) -> None:
    kept = {".gitignore": b"*.log\nbuild/\n", "a.py": b"", "sub/.gitignore": b"!keep.log\n", "sub/keep.log": b""}
    commit(tmp_path, {**kept, "a.log": b"", "build/b.py": b"", "sub/drop.log": b""})
    assert [one.path for one in entries(tmp_path)] == [*kept]


def test_links_submodules_and_strange_names_are_refused(tmp_path: Path) -> None:
    link, module, file = stat.S_IFLNK, 0o160000, 0o100644
    names = [b"..", b".git", b"a/b", b".GIT", b"\xff"]
    listed = [(b"link", link, b"/etc/passwd"), (b"module", module, b"1" * 40), *((name, file, b"x") for name in names)]
    object_commit(tmp_path / "r", [*listed, (b"good.py", file, b"good"), (b"run.sh", 0o100755, b"run")])
    found = entries(tmp_path / "r")
    outside = [(name, "path leads outside") for name in ("..", ".GIT", ".git")]
    assert refused(found) == [
        *outside, ("\\xff", "name is not UTF-8"), ("a/b", "path leads outside"), ("link", "link"),
        ("module", "submodule"),
    ]  # fmt: skip
    assert [one for one in found if isinstance(one, File)] == [File("good.py", b"good"), File("run.sh", b"run")]


TREES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "a.b", "a-", "é", "Z"]), min_size=1, max_size=3).map("/".join),
    st.binary(max_size=200),
    min_size=1,
    max_size=8,
).filter(lambda tree: not any(one.startswith(other + "/") for one in tree for other in tree))


@needs_git
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_the_same_files_as_git_lists(tmp_path: Path, tree: dict[str, bytes]) -> None:
    root = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    commit(root, tree)
    for pack in (False, True):
        if pack:
            git(root, "gc", "--quiet")
        found = entries(root)
        assert {one.path: one.data for one in found if isinstance(one, File)} == tree and not refused(found)
        assert [one.path for one in found] == sorted(
            git(root, "ls-tree", "-rz", "--name-only", "HEAD").split("\0")[:-1]
        )


@needs_git
def test_packed_changes_of_changes_bare_shallow_and_borrowed(tmp_path: Path) -> None:
    draw = random.Random(0)
    lines = [f"line {draw.random()}" for _ in range(2000)]
    for number in range(12):
        lines[draw.randrange(2000)] = f"changed {number}"
        commit(tmp_path / "a", {f"v{number}.txt": "\n".join(lines).encode(), "now.txt": "\n".join(lines).encode()})
    expected = entries(tmp_path / "a")
    git(tmp_path / "a", "pack-refs", "--all")
    git(tmp_path / "a", "repack", "-adfq", "--depth=50", "--window=50")
    url = (tmp_path / "a").as_uri()
    git(tmp_path, "clone", "-q", "--bare", url, "bare.git")
    git(tmp_path, "clone", "-q", "--depth=1", url, "shallow")
    git(tmp_path, "clone", "-q", "--shared", str(tmp_path / "a"), "shared")
    git(tmp_path / "a", "worktree", "add", "-q", str(tmp_path / "tree"), "--detach")
    os.mkfifo(tmp_path / "tree" / "pipe")  # nobody asks what is in a work tree
    for name in ("a", "bare.git", "shallow", "shared", "tree"):
        assert entries(tmp_path / name) == expected and not refused(expected)
    assert GitCommit(tmp_path / "bare.git").name == "bare"


@needs_git
def test_a_clone_that_lacks_files_counts_them(tmp_path: Path) -> None:
    commit(tmp_path, {"a.py": b"a", "b/c.py": b"c"})
    blob = git(tmp_path, "rev-parse", "HEAD:a.py").strip()
    tree = git(tmp_path, "rev-parse", "HEAD:b").strip()
    for name in (blob, tree):
        (tmp_path / ".git/objects" / name[:2] / name[2:]).unlink()
    assert refused(entries(tmp_path)) == [("a.py", "not in the clone"), ("b", "not in the clone")]


@pytest.mark.parametrize("packed", [False, True])
def test_a_large_file_is_not_unpacked(tmp_path: Path, packed: bool) -> None:
    huge = b"\0" * 40_000_000
    commit(tmp_path, {"huge": huge, "exact": b"x" * MAX_BYTES, "next": b"x" * (MAX_BYTES + 1)})
    if packed:
        porcelain.repack(tmp_path)
    tracemalloc.start()
    found = entries(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused(found) == [("huge", "too large"), ("next", "too large")] and most < 10_000_000
    assert found[0] == File("exact", b"x" * MAX_BYTES)


@needs_git
def test_a_small_file_that_is_a_change_of_a_huge_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codegen25.data.git_objects.MAX_OBJECT_BYTES", 1_500_000)
    base = random.Random(1).randbytes(2_000_000)
    commit(tmp_path, {"data": base})
    commit(tmp_path, {"data": base[:900_000]})
    assert entries(tmp_path) == [File("data", base[:900_000])]
    git(tmp_path, "repack", "-adfq", "--depth=50")
    assert refused(entries(tmp_path)) == [("data", "too large")]


def loose(root: Path, name: str) -> Path:
    return root / ".git/objects" / name[:2] / name[2:]


def store(root: Path, kind: bytes, data: bytes) -> str:
    """Write a loose object; its name."""
    whole = kind + b" %d\0" % len(data) + data
    name = hashlib.sha1(whole).hexdigest()
    loose(root, name).parent.mkdir(parents=True, exist_ok=True)
    loose(root, name).write_bytes(zlib.compress(whole))
    return name


def test_an_object_with_another_content_is_not_believed(tmp_path: Path) -> None:
    commit(tmp_path, {"a.py": b"mine", "b.py": b"b"})
    path = loose(tmp_path, Blob.from_string(b"mine").id.decode())
    path.chmod(0o600)
    for forged in (zlib.compress(b"blob 4\0evil"), zlib.compress(b"tree 4\0mine"), b"", b"\x78\x9c", b"garbage"):
        path.write_bytes(forged)
        assert refused(entries(tmp_path)) == [("a.py", "damaged")]


def test_folders_within_folders_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten names of one folder, ten times: ten billion paths. A chain of folders: names longer than any path."""
    monkeypatch.setattr(repositories, "MAX_FILES", 500)
    porcelain.init(tmp_path)
    below, mode = store(tmp_path, b"blob", b"x"), b"100644"
    for _ in range(10):
        below = store(tmp_path, b"tree", b"".join(b"%b %d\0" % (mode, n) + bytes.fromhex(below) for n in range(10)))
        mode = b"40000"
    with Repo(str(tmp_path)) as repo:
        commit_tree(repo, below.encode())
        found = entries(tmp_path)
        assert len(found) == 502 and refused(found) == [("", "too many entries")]
        below = store(tmp_path, b"tree", b"")
        for _ in range(60):
            below = store(tmp_path, b"tree", b"40000 %b\0" % (b"d" * 100) + bytes.fromhex(below))
        commit_tree(repo, below.encode())
    assert [one.reason for one in entries(tmp_path) if isinstance(one, Refused)] == ["path too long"]


@pytest.mark.parametrize("date", [-1, 1 << 40, 1 << 62])
def test_impossible_dates(tmp_path: Path, date: int) -> None:
    object_commit(tmp_path / "r", [(b"a.py", 0o100644, b"a")], date)
    assert GitCommit(tmp_path / "r").date in {"", "1969-12-31T23:59:59Z"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config", "[core]\nrepositoryformatversion = 9\n"), ("config", "[extensions]\npartialclone = origin\n"),
        ("config", "[broken"), ("HEAD", "ref: refs/heads/none\n"), ("HEAD", "\xff\xfe"), ("HEAD", "ref: HEAD\n"),
        ("HEAD", "ref: ../../../outside\n"),
    ],
)  # fmt: skip
def test_a_repository_that_cannot_be_used_is_one_line(tmp_path: Path, file: str, text: str) -> None:
    commit(tmp_path, {"a.py": b"a"})
    (tmp_path / ".git" / file).write_text(text)
    with pytest.raises(CodegenError) as raised:
        GitCommit(tmp_path)
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("name", ["config", "HEAD", "refs/heads/master", "packed-refs", "objects/pack/pack-1.idx"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path, name: str) -> None:
    commit(tmp_path, {"a.py": b"a"})
    (tmp_path / ".git" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / ".git" / name)
    with pytest.raises(CodegenError, match=f"{name} is no regular file"):
        GitCommit(tmp_path)


def test_a_loose_object_that_is_a_pipe(tmp_path: Path) -> None:
    commit(tmp_path, {"a.py": b"mine"})
    path = loose(tmp_path, Blob.from_string(b"mine").id.decode())
    path.unlink()
    os.mkfifo(path)
    assert refused(entries(tmp_path)) == [("a.py", "damaged")]


def test_packs_are_closed_without_a_word(tmp_path: Path) -> None:
    commit(tmp_path, {"a.py": b"a"})
    porcelain.repack(tmp_path)
    code = f"""
from pathlib import Path
from codegen25.data.repositories import GitCommit
kept_to_the_end = GitCommit(Path({str(tmp_path)!r}))
for found in (kept_to_the_end, GitCommit(Path({str(tmp_path)!r}))):
    assert len(list(found.entries(""))) == 1
"""
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-W", "error", "-c", code]
    made = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root})
    assert made.stderr == ""


def test_no_repository_or_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="not a git repository"):
        GitCommit(tmp_path)
    porcelain.init(tmp_path)
    with pytest.raises(CodegenError, match="has no commit HEAD"):
        GitCommit(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_pack_is_no_bug_of_ours(tmp_path: Path, changes: list[tuple[float, int]]) -> None:
    if not (tmp_path / ".git").exists():
        lines = [b"line %d\n" % number for number in range(300)]
        for number in range(5):
            lines[number * 50] = b"changed\n"
            commit(tmp_path, {f"{number}.txt": b"".join(lines), "sub/a.txt": lines[number]})
        porcelain.repack(tmp_path)
        shutil.copytree(tmp_path / ".git", tmp_path / "whole")
    for path in (tmp_path / "whole/objects/pack").iterdir():
        data = bytearray(path.read_bytes())
        for at, value in changes if path.suffix == ".pack" or len(changes) > 3 else ():
            data[int(at * (len(data) - 1))] = value
        target = tmp_path / ".git/objects/pack" / path.name
        target.unlink()
        target.write_bytes(data)
    try:
        found = entries(tmp_path)
    except CodegenError:
        return
    for one in found:  # a file is whole or refused
        assert isinstance(one, Refused) or one.data == (tmp_path / one.path).read_bytes()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/owner/repo.git", "example.com/owner/repo"),
        ("https://user:secret@Example.com:8443/owner/repo/", "example.com/owner/repo"),
        ("https://token@example.com/owner/repo?token=secret", "example.com/owner/repo"),
        ("git@example.com:owner/repo.git", "example.com/owner/repo"),
        ("ssh://git@example.com:22/a/b/c.git", "example.com/a/b/c"), ("/home/me/repo", ""), ("../repo", ""),
        ("file:///home/me/repo", ""), ("C:\\repo", ""), ("https://example.com/", ""), ("https://example.com/a b", ""),
        ("ext::sh -c evil", ""), ("", ""),
    ],
)  # fmt: skip
def test_remotes_are_names_without_secrets(tmp_path: Path, url: str, name: str) -> None:
    assert remote_name(url) == name
    commit(tmp_path / "folder.git", {"a.py": b""})
    with (tmp_path / "folder.git/.git/config").open("a") as config:
        config.write('[remote "origin"]\n\turl = ' + url.replace("\\", "\\\\") + "\n" if url else "")
    assert GitCommit(tmp_path / "folder.git").name == (name or "folder")
