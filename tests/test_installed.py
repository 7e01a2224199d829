"""Installed packages by their RECORD, and the standard library of the Python that runs."""

import ast
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

import pytest

from codegen25.data.installed import STDLIB, Installed, StandardLibrary, packages
from codegen25.data.manifests import normalized
from codegen25.data.source import Entry, File, Refused
from codegen25.errors import CodegenError

METADATA = "Metadata-Version: 2.4\nName: Some.Thing\nVersion: 1.2\nLicense-Expression: MIT\n"


def install(site: Path, files: dict[str, bytes], record: list[str] | None = None, metadata: str = METADATA) -> Path:
    """As an installer leaves a package; `record` lists other files than there are."""
    about = "some_thing-1.2.dist-info"
    written = {**files, f"{about}/METADATA": metadata.encode(), f"{about}/INSTALLER": b"pip"}
    listed = [*written, f"{about}/RECORD"] if record is None else record
    written[f"{about}/RECORD"] = "".join(f'"{name}",,\n' for name in listed).encode()
    for name, data in written.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(data)
    return site


def entries(site: Path) -> list[Entry]:
    return list(Installed(site, "some-thing").entries(""))


def refused(found: list[Entry]) -> list[tuple[str, str]]:
    return [(one.path, one.reason) for one in found if isinstance(one, Refused)]


def test_a_package_is_what_its_record_lists(tmp_path: Path) -> None:
    files = {
        "thing/__init__.py": b"x", "thing/a, b.txt": b"text", "thing/__pycache__/a.pyc": b"made", "z.py": b"z",
        "some_thing-1.2.dist-info/licenses/LICENSE": b"MIT",
    }  # fmt: skip
    site = install(tmp_path, files)
    (site / "thing" / "unlisted.py").write_text("someone else's")
    found = Installed(site, "Some_Thing")
    assert (found.version, found.metadata().text, found.metadata().kind) == ("1.2", METADATA, "python")
    about = "some_thing-1.2.dist-info/"
    assert [one.path for one in found.entries("")] == [
        f"{about}METADATA", f"{about}licenses/LICENSE", "thing/__init__.py", "thing/a, b.txt", "z.py",
    ]  # fmt: skip
    assert found.license_files() == {f"{about}licenses/LICENSE": "MIT"} and found.parts() == [""]
    assert [*packages(site)] == ["some-thing"]


def test_the_hash_is_of_the_package_not_of_its_installation(tmp_path: Path) -> None:
    one, other = install(tmp_path / "1", {"a.py": b"a"}), install(tmp_path / "2", {"a.py": b"a"})
    for name, data in (("INSTALLER", b"other"), ("direct_url.json", b"{}"), ("REQUESTED", b"")):
        (other / "some_thing-1.2.dist-info" / name).write_bytes(data)
    with (other / "some_thing-1.2.dist-info/RECORD").open("a") as record:
        record.write("some_thing-1.2.dist-info/direct_url.json,,\n../../../bin/thing,,\n__pycache__/a.pyc,,\n")
    hashes = [Installed(site, "some-thing").listing_hash() for site in (one, other)]
    assert hashes[0] == hashes[1]
    (other / "a.py").write_bytes(b"b")
    assert Installed(other, "some-thing").listing_hash() != hashes[0]


def test_a_record_that_leads_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("secret")
    site = tmp_path / "site"
    listed = [
        "a.py",
        "../secret.py",
        "pkg/../../secret.py",
        str(secret),
        "linked/secret.py",
        "link.py",
        "pipe",
        "gone.py",
    ]
    install(site, {"a.py": b"a"}, listed)
    (site / "linked").symlink_to(tmp_path)
    (site / "link.py").symlink_to(secret)
    os.mkfifo(site / "pipe")
    found = entries(site)
    assert sorted(refused(found)) == [
        (str(secret), "path leads outside"), ("gone.py", "unreadable"), ("link.py", "unreadable"),
        ("linked/secret.py", "path leads outside"), ("pipe", "unreadable"),
        ("pkg/../../secret.py", "path leads outside"),
    ]  # fmt: skip
    assert [one for one in found if isinstance(one, File)] == [File("a.py", b"a")]


def test_what_is_not_installed_or_has_no_record(tmp_path: Path) -> None:
    site = install(tmp_path, {"a.py": b"a"})
    with pytest.raises(CodegenError, match="other: not installed in"):
        Installed(site, "other")
    for nameless in ("", "Name: some thing\nVersion: 1\n", "Name: some-thing\n"):
        install(site, {}, metadata=nameless)
        assert packages(site) == {}
    install(site, {})
    (site / "some_thing-1.2.dist-info/RECORD").unlink()
    with pytest.raises(CodegenError, match="with a RECORD"):
        Installed(site, "some-thing")
    with pytest.raises(CodegenError, match="no such folder"):
        packages(tmp_path / "missing")


def test_the_packages_that_are_installed_here() -> None:
    site = Path(sysconfig.get_path("purelib"))
    found = packages(site)
    assert [*found] == sorted(found) and "pytest" in found
    known = {normalized(one.metadata["Name"]) for one in distributions(path=[str(site)]) if one.read_text("RECORD")}
    assert known == set(found)
    pytest_files = [one for one in Installed(site, "pytest").entries("") if isinstance(one, File)]
    listed = {str(one) for one in found["pytest"].files or () if one.suffix == ".py" and ".." not in one.parts}
    assert {one.path for one in pytest_files if one.path.endswith(".py")} == listed
    assert any("MIT" in text for text in Installed(site, "pytest").license_files().values())


def test_the_standard_library() -> None:
    library = StandardLibrary()
    found = {one.path: one.data for one in library.entries("") if isinstance(one, File)}
    assert STDLIB == "python-stdlib" and library.version == ".".join(map(str, sys.version_info[:3]))
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py"} <= set(found) and list(found) == sorted(found)
    assert found["ast.py"] == Path(ast.__file__).read_bytes()
    assert all(path.endswith(".py") for path in found)
    left_out = {"test", "tests", "site-packages", "idlelib", "lib2to3", "ensurepip", "__pycache__"}
    assert not [path for path in found if left_out & set(path.split("/"))]
    assert library.metadata().text == "License-Expression: PSF-2.0\n" and library.license_files() == {}


def test_nothing_that_is_installed_is_imported(tmp_path: Path) -> None:
    site = install(tmp_path, {"thing/__init__.py": b"raise SystemExit('imported')", "x.pth": b"import thing"})
    code = f"""
import sys
from pathlib import Path
from codegen25.data.installed import Installed
sys.path.insert(0, {str(site)!r})
assert len(list(Installed(Path({str(site)!r}), "some-thing").entries(""))) == 3
assert "thing" not in sys.modules
"""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)})
