"""Wheels, source archives and tarballs: what is in them, and everything that one may be made of to do harm."""

import gzip
import io
import os
import stat
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegen25.data import archives
from codegen25.data.archives import Archive, ArchiveKind
from codegen25.data.folders import Folder
from codegen25.data.members import iso_day, most_bytes, place
from codegen25.data.source import MAX_BYTES, Entry, File, Refused
from codegen25.errors import CodegenError

METADATA = b"Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.2\nLicense-Expression: MIT\n\nName: other\n"
TAR_MODES = {"w": ".tar", "w:gz": ".tar.gz", "w:bz2": ".tar.bz2", "w:xz": ".tar.xz"}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters='/\\\0:"', exclude_categories=["Cc"]), min_size=1)
PATHS = st.lists(NAMES.filter(lambda n: n not in {".", ".."} and len(n.encode()) < 80), min_size=1, max_size=4)


def is_tree(paths: list[str]) -> bool:
    """Whether these can all be files in one folder."""
    return not any(one.startswith(other + "/") for one in paths for other in paths)


TREES = st.dictionaries(PATHS.map("/".join), st.binary(max_size=2000), max_size=8).filter(lambda t: is_tree([*t]))


def zip_of(path: Path, files: Mapping[str, bytes], top: str = "", day: tuple[int, int, int] = (2024, 5, 6)) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(top + name, (*day, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return path


def tar_of(path: Path, files: Mapping[str, bytes], top: str = "top/", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            add(archive, top + name, data)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mtime = len(data), kind, link, 1_700_000_000
    archive.addfile(info, io.BytesIO(data))


def entries(path: Path, kind: ArchiveKind = "sdist") -> list[Entry]:
    return list(Archive(path, kind).entries(""))


def read(found: list[Entry]) -> dict[str, bytes]:
    """The files alone; nothing may be refused."""
    assert not [one for one in found if isinstance(one, Refused)]
    return {one.path: one.data for one in found if isinstance(one, File)}


def refused(found: list[Entry]) -> list[tuple[str, str]]:
    return [(one.path, one.reason) for one in found if isinstance(one, Refused)]


# What is in them


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_the_same_tree_gives_the_same_entries_however_it_is_packed(tmp_path: Path, tree: dict[str, bytes]) -> None:
    folder = tmp_path / f"folder-{len(list(tmp_path.iterdir()))}"
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    folder.mkdir(exist_ok=True)
    hidden = {name for name in tree if {".git", ".gitignore"} & set(name.split("/"))}
    assert read(list(Folder(folder).entries(""))) == {name: tree[name] for name in tree if name not in hidden}
    assert read(entries(zip_of(tmp_path / "a.zip", tree, "top/"))) == tree
    assert read(entries(zip_of(tmp_path / "a.whl", tree), "wheel")) == tree
    for mode, ending in TAR_MODES.items():
        assert read(entries(tar_of(tmp_path / f"a{ending}", tree, mode=mode))) == tree


def test_a_wheel_says_its_name_and_licences_and_its_own_notes_are_no_files(tmp_path: Path) -> None:
    files = {
        "pkg/__init__.py": b"x = 1\n",
        "pkg/vendor.dist-info/METADATA": b"Name: vendored\nVersion: 9\n",
        "pkg/licenses/MIT.txt": b"vendored MIT",
        "thing-1.2.dist-info/METADATA": METADATA,
        "thing-1.2.dist-info/RECORD": b"",
        "thing-1.2.dist-info/licenses/LICENSE": b"MIT \xff License",
    }
    found = Archive(zip_of(tmp_path / "misnamed-9-py3-none-any.whl", files), "wheel")
    assert found.identity() == ("some-thing", "1.2")
    assert found.metadata().file == "thing-1.2.dist-info/METADATA" and found.metadata().text == METADATA.decode()
    assert found.license_files() == {
        "pkg/licenses/MIT.txt": "vendored MIT", "thing-1.2.dist-info/licenses/LICENSE": "MIT \ufffd License",
    }  # fmt: skip
    assert [one.path for one in found.entries("")] == [*files][:3]
    assert found.parts() == [""]


@pytest.mark.parametrize("mode", TAR_MODES)
def test_a_source_archive_is_told_by_its_bytes_and_loses_its_top_folder(tmp_path: Path, mode: str) -> None:
    files = {"PKG-INFO": METADATA, "LICENSE": b"MIT", "src/a.py": b"a"}
    path = tar_of(tmp_path / "any.name", files, "./some_thing-1.2/", mode)
    found = Archive(path, "sdist")
    assert found.identity() == ("some-thing", "1.2") and found.license_files() == {"LICENSE": "MIT"}
    assert read(list(found.entries(""))) == files
    assert found.date == "2023-11-14"


def test_npm_names_stay_as_they_are_and_the_top_folder_has_any_name(tmp_path: Path) -> None:
    files = {"package.json": b'\xef\xbb\xbf{"name": "@scope/My.Pkg", "version": "1.0.0-rc.1"}', "index.js": b"x"}
    for top in ("package/", "node/"):
        found = Archive(tar_of(tmp_path / "a.tgz", files, top), "npm")
        assert found.identity() == ("@scope/My.Pkg", "1.0.0-rc.1")
        assert found.metadata().kind == "npm" and found.date == ""
        assert read(list(found.entries(""))) == files


@pytest.mark.parametrize(
    ("manifest", "kind"),
    [
        (b"", "sdist"), (b"Name: a\n", "sdist"), (b"Name: a b\nVersion: 1\n", "sdist"),
        (b"Name: ../a\nVersion: 1\n", "sdist"), (b"Version: 1\n\nName: a\n", "sdist"), (b"{", "npm"), (b"[]", "npm"),
        (b'{"name": "a"}', "npm"), (b'{"name": "../a", "version": "1"}', "npm"), (b'{"name": 1, "version": 2}', "npm"),
        (b"[" * 100_000, "npm"),
    ],
)  # fmt: skip
def test_a_package_without_a_usable_name_is_none(tmp_path: Path, manifest: bytes, kind: ArchiveKind) -> None:
    name = "package.json" if kind == "npm" else "PKG-INFO"
    with pytest.raises(CodegenError, match=r"a\.tgz.* with a name and a version"):
        Archive(tar_of(tmp_path / "a.tgz", {name: manifest}), kind).identity()


@pytest.mark.parametrize(
    ("days", "date"),
    [
        ([(2020, 1, 2), (2024, 5, 6)], "2024-05-06"), ([(1980, 1, 1)], ""), ([(2020, 2, 2)], ""),
        ([(2020, 2, 2), (2019, 3, 3)], "2019-03-03"),
    ],
)  # fmt: skip
def test_the_date_is_that_of_the_newest_file_unless_builders_made_it_up(
    tmp_path: Path, days: list[tuple[int, int, int]], date: str
) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for number, day in enumerate(days):
            archive.writestr(zipfile.ZipInfo(f"{number}.py", (*day, 0, 0, 0)), b"")
    assert Archive(tmp_path / "a.whl", "wheel").date == date


@pytest.mark.parametrize("when", [(0, 0, 0), (2024, 0, 1), (2024, 13, 1), (1980, 12, 31), (-5, 1, 1)])
def test_days_that_are_none_are_not_believed(when: tuple[int, int, int]) -> None:
    assert iso_day(*when) == ""


# Names

OUTSIDE = ["../x", "a/../../x", "/etc/x", "a\\x", "..\\x", "C:x", "c:/x", ".."]


@pytest.mark.parametrize("name", [*OUTSIDE, "a\0b", "", ".", "./"])
def test_names_that_lead_outside_have_no_place(name: str) -> None:
    assert isinstance(place(name), Refused)


def test_names_are_made_plain() -> None:
    assert place("./a//b/./c.py") == "a/b/c.py"
    assert place("é".encode()) == "é"
    assert place(b"\xe9") == Refused("\\xe9", "name is not UTF-8")
    assert place("\udce9") == Refused("\\xe9", "name is not UTF-8")


def test_entries_that_lead_outside_are_refused_and_the_rest_is_read(tmp_path: Path) -> None:
    files = {**dict.fromkeys(OUTSIDE, b"evil"), "good.py": b"good"}
    for found in (entries(zip_of(tmp_path / "a.whl", files), "wheel"), entries(tar_of(tmp_path / "a.tgz", files, ""))):
        assert refused(found) == [(name, "path leads outside") for name in OUTSIDE]
        assert [one.data for one in found if isinstance(one, File)] == [b"good"]
    inside = {"top/../../x": b""}
    assert refused(entries(tar_of(tmp_path / "b.tgz", inside, ""))) == [("top/../../x", "path leads outside")]
    assert [path.name for path in tmp_path.iterdir()] and not (tmp_path.parent / "x").exists()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "top/\udcff.py")
    assert refused(entries(tmp_path / "a.tar")) == [("top/\\xff.py", "name is not UTF-8")]
    path = zip_of(tmp_path / "a.zip", {"aaaa.py": b"", "bbbb.py": b"b"})
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"\xe9aaa").replace(b"bbbb", "éb".encode() + b"b"))
    found = entries(path, "wheel")  # old zips do not say how their names are written
    assert refused(found) == [("\\xe9aaa.py", "name is not UTF-8")] and found[1] == File("ébb.py", b"b")


def test_a_name_that_appears_twice_is_read_once(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
            for name, data in (("a.py", b"1"), ("b.py", b""), ("./a.py", b"2"), ("a.py", b"3")):
                wheel.writestr(name, data)
    found = entries(tmp_path / "a.whl", "wheel")
    assert found[0] == File("a.py", b"1") and refused(found) == [("a.py", "name appears twice")] * 2
    tar_of(tmp_path / "a.tgz", {"one/a.py": b"1", "two/a.py": b"2", "one/./a.py": b"3"}, "")
    assert refused(entries(tmp_path / "a.tgz")) == [("a.py", "name appears twice")] * 2


# Kinds


def test_links_and_devices_in_a_tar(tmp_path: Path) -> None:
    kinds = {
        tarfile.SYMTYPE: "link", tarfile.LNKTYPE: "link", tarfile.FIFOTYPE: "not a file", tarfile.CHRTYPE: "not a file",
        tarfile.BLKTYPE: "not a file", tarfile.GNUTYPE_SPARSE: "not a file",
    }  # fmt: skip
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        add(archive, "top", kind=tarfile.DIRTYPE)
        for kind in kinds:
            add(archive, f"top/{kind!r}", kind=kind, link="/etc/passwd")
        add(archive, "top/last.py", b"last")
    found = entries(tmp_path / "a.tgz")
    assert [one.reason for one in found if isinstance(one, Refused)] == [*kinds.values()]
    assert found[-1] == File("last.py", b"last")


def test_links_and_what_cannot_be_unpacked_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for name, mode in (("link", stat.S_IFLNK), ("pipe", stat.S_IFIFO), ("file", stat.S_IFREG)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            archive.writestr(info, b"/etc/passwd")
        archive.writestr("folder/", b"")
        archive.writestr("packed", b"x" * 1000, zipfile.ZIP_LZMA)
    found = entries(tmp_path / "a.whl", "wheel")
    assert refused(found) == [("link", "link"), ("pipe", "not a file"), ("packed", "unknown compression")]
    assert found[2] == File("file", b"/etc/passwd")


def test_an_encrypted_entry(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.whl", {"a.py": b"a", "b.py": b"b"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    found = entries(path, "wheel")
    assert refused(found) == [("a.py", "encrypted")] and found[1] == File("b.py", b"b")


def test_a_wrong_checksum_is_that_of_its_entry(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.py", b"unharmed")
        archive.writestr("b.py", b"original")
    data = (tmp_path / "a.whl").read_bytes().replace(b"original", b"replaced")
    (tmp_path / "a.whl").write_bytes(data)
    found = entries(tmp_path / "a.whl", "wheel")
    assert refused(found) == [("b.py", "damaged")] and found[0] == File("a.py", b"unharmed")


@pytest.mark.parametrize("make", ["nothing", "text", "pipe", "folder", "missing", "half a zip", "empty"])
def test_what_is_no_archive_is_one_line(tmp_path: Path, make: str) -> None:
    path = tmp_path / "a.whl"
    if make == "pipe":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    elif make == "half a zip":
        path.write_bytes(zip_of(tmp_path / "b.zip", {"a.py": os.urandom(1000)}).read_bytes()[:900])
    elif make != "missing":
        path.write_bytes({"nothing": b"\0" * 100, "text": b"text\n" * 300, "empty": b""}[make])
    with pytest.raises(CodegenError, match=r"a\.whl: cannot be read as an archive \(.*fetch it again") as raised:
        entries(path, "wheel")
    assert "\n" not in str(raised.value)


# Sizes


def test_long_files_are_cut(tmp_path: Path) -> None:
    tree = {"long.txt": os.urandom(MAX_BYTES + 500_000), "exact.txt": b"y" * MAX_BYTES, "next.txt": b"n"}
    cut = {name: data[: MAX_BYTES + 1] for name, data in tree.items()}
    assert read(entries(zip_of(tmp_path / "a.zip", tree, "top/"))) == cut
    assert read(entries(tar_of(tmp_path / "a.tgz", tree))) == cut


def peak(path: Path, kind: ArchiveKind) -> tuple[list[Entry], int]:
    """The entries, and the most memory that Python held at once while they were read and let go."""
    tracemalloc.start()
    found = [
        one if isinstance(one, Refused) else File(one.path, one.data[:10]) for one in Archive(path, kind).entries("")
    ]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, most


def test_archives_that_unpack_to_many_times_their_size_end_there(tmp_path: Path) -> None:
    zeros = b"\0" * 40_000_000
    zip_of(tmp_path / "a.whl", {"first.py": b"1", "zeros": zeros})
    found, most = peak(tmp_path / "a.whl", "wheel")
    assert refused(found) == [("", "archive bomb")] and most < 10_000_000
    tar_of(tmp_path / "a.tgz", {"first.py": b"1", "zeros": zeros, "last.py": b"3"})
    found, most = peak(tmp_path / "a.tgz", "sdist")
    assert [one.path for one in found] == ["first.py", "zeros", ""]
    assert refused(found) == [("", "archive bomb")] and most < 10_000_000
    with pytest.raises(CodegenError, match=r"a.whl: cannot be read as an archive \(unpacks to many times its size"):
        Archive(tmp_path / "a.whl", "wheel").identity()
    small = {f"{number}.txt": b"\0" * 9_000 for number in range(1000)}  # below what does harm
    assert len(read(entries(tar_of(tmp_path / "b.tgz", small)))) == 1000


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    """The list says 100 bytes, the stream holds 40 million: no more comes out than was said."""
    path = zip_of(tmp_path / "a.whl", {"zeros": b"\0" * 40_000_000})
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        where = data.index(mark) + at
        data[where : where + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    found, most = peak(path, "wheel")
    assert refused(found) == [("zeros", "damaged")] and most < 10_000_000


def header(kind: bytes, size: int, name: str = "top/x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("name", "evil"),
    [
        ("long name of 5 MB", header(tarfile.GNUTYPE_LONGNAME, 5_000_000) + b"n" * 5_000_192),
        ("extended header of digits", header(tarfile.XHDTYPE, 200_000) + b"1" * 200_192),
        ("negative size", header(tarfile.REGTYPE, -1024)),
        ("negative long name", header(tarfile.GNUTYPE_LONGNAME, -1024)),
        ("names of names", header(tarfile.GNUTYPE_LONGNAME, 0) * 5000),
        ("no size at all", header(tarfile.XHDTYPE, 512) + b"12 size=abcd\n9 mtime=nan\n".ljust(512, b"\0")),
        ("zero record", header(tarfile.XHDTYPE, 512) + b"0 a=b\n".ljust(512, b"\0")),
        ("not a header", b"garbage " * 64),
        ("an exabyte", header(tarfile.REGTYPE, 1 << 60)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_headers_that_are_made_to_do_harm_end_the_archive(tmp_path: Path, name: str, evil: bytes) -> None:
    good = header(tarfile.REGTYPE, 4, "top/good.py") + b"good".ljust(512, b"\0")
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(good + evil + bytes(1024))
    found, most = peak(tmp_path / "a.tgz", "sdist")
    assert found[0] == File("good.py", b"good") and len(found) == 2 and most < 10_000_000
    assert refused(found)[0] in {("", "damaged archive"), ("", "archive bomb"), ("", "truncated archive")}


def test_more_entries_than_an_archive_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_ENTRIES", 20)
    tree = {f"{number}.py": b"" for number in range(30)}
    for found in (entries(zip_of(tmp_path / "a.whl", tree), "wheel"), entries(tar_of(tmp_path / "a.tgz", tree))):
        assert len(found) == 21 and refused(found) == [("", "too many entries")]


def test_the_bound_grows_with_the_archive() -> None:
    assert most_bytes(0) == 10_000_000 and most_bytes(1 << 20) == 100 << 20


# Damage


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_cut_anywhere_gives_what_was_there_and_says_so(tmp_path: Path, mode: str) -> None:
    tree = {f"{number}.py": os.urandom(number * 40) for number in range(40)}
    path = tar_of(tmp_path / "a.tar", tree, mode=mode)
    whole, complete = path.read_bytes(), entries(path)
    ends = len(whole) if mode != "w" else len(whole.rstrip(b"\0")) // 512 * 512  # zeros fill a plain tar
    for length in [*range(1, ends, max(1, ends // 150)), ends - 1]:
        path.write_bytes(whole[:length])
        try:
            found = entries(path)
        except CodegenError:
            continue
        assert refused(found) == [("", "truncated archive")] and found[:-1] == complete[: len(found) - 1]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["zip", "w", "w:gz"]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1))
def test_damaged_bytes_are_no_bug_of_ours(tmp_path: Path, mode: str, changes: list[tuple[float, int]]) -> None:
    tree = {"PKG-INFO": METADATA, "LICENSE": b"MIT", "a.py": b"a" * 3000, "long" * 40 + ".py": b"b"}
    path = tmp_path / "a.tar"
    data = bytearray((zip_of(path, tree, "top/") if mode == "zip" else tar_of(path, tree, mode=mode)).read_bytes())
    for at, value in changes:
        data[int(at * (len(data) - 1))] = value
    path.write_bytes(data)
    try:
        found = Archive(path, "sdist")
        assert found.metadata() is not None and found.license_files() is not None and found.date is not None
        assert all(isinstance(one, File | Refused) and one.path.encode() is not None for one in found.entries(""))
    except CodegenError:
        return  # nothing could be read of it
