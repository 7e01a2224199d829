"""The wheel, built and installed on its own, works from a folder that knows nothing of the sources."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NANO = ROOT / "codegen25" / "models" / "nano"
MAX_FILE_BYTES = 95_000_000  # code hosts refuse single files of 100 MB


def _python(*arguments: str | Path) -> None:
    result = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    quickly = "-Ccmake.build-type=Debug"  # a slow engine is built sooner
    _python("-m", "build", "--wheel", "--no-isolation", quickly, "--outdir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    _python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def python(site: Path, cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python in `cwd` with the installed package; what it depends on comes from the tests' own environment.

    -S: an editable installation in that environment would go first.
    """
    path = os.pathsep.join([str(site), sysconfig.get_path("platlib"), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed console script."""
    return python(site, cwd, site / "bin" / "codegen25", *arguments)


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = HeaderParser().parsestr(archive.read(next(n for n in names if n.endswith("/METADATA"))).decode())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "codegen25").rglob("*.py")}
    assert sources <= set(names)
    assert {"codegen25/py.typed", "codegen25/ranks/gpt2.tiktoken", "codegen25/ranks/LICENSE"} <= set(names)
    page = {f"codegen25/serve/page/{name}" for name in ("index.html", "page.js", "page.css", "licences.txt")}
    assert page <= set(names)
    assert {name.split("/")[0] for name in names} == {"codegen25", f"codegen25-{metadata['Version']}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or ".partial" in name]
    (_,) = (name for name in names if name.startswith("codegen25/_native") and name.endswith(".so"))
    assert "codegen25/_native.pyi" in names
    assert not [name for name in names if name.startswith("codegen25/native") or name.endswith("CMakeLists.txt")]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE", "codegen25/ranks/LICENSE"]


def test_it_is_the_installed_package_that_runs(site: Path, tmp_path: Path) -> None:
    found = python(site, tmp_path, "-c", "from codegen25 import _native, cli; print(_native.__file__, cli.__file__)")
    assert all(Path(place).is_relative_to(site) for place in found.stdout.split()) and found.stdout, found.stderr
    assert run(site, tmp_path, "--version").stdout.startswith("codegen25 ")


def test_the_family_tokenizer_from_another_folder(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, "tokenizer", "family")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert (tmp_path / "family" / "tokenizer.json").is_file()


def test_the_embedded_model_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {Path(info.filename).name: info.file_size for info in archive.infolist() if "/nano/" in info.filename}
    assert {"config.json", "tokenizer.json", "model.safetensors", "README.md"} <= set(sizes)
    assert max(sizes.values()) < MAX_FILE_BYTES


def test_complete_from_another_folder(site: Path, tmp_path: Path) -> None:
    result = run(site, tmp_path, "complete", "def is_prime(n):", "--max-tokens", "8")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_complete_without_torch(site: Path, tmp_path: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = None; from codegen25.cli import main; sys.exit(main(sys.argv[1:]))"
    result = python(site, tmp_path, "-c", blocked, "complete", "def is_prime(n):", "--max-tokens", "2")
    assert result.returncode == 0 and result.stdout.strip(), result.stderr


@pytest.mark.slow
def test_the_source_archive_holds_what_the_build_needs(tmp_path: Path) -> None:
    _python("-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["pyproject.toml", "CMakeLists.txt", "Makefile", "README.md", "LICENSE", "NOTICE", ".ci/run"]
    folders = ("codegen25", "docs", "examples", "recipes", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted += [path.relative_to(ROOT).as_posix() for path in files if path.suffix not in (".pyc", ".so")]
    assert set(wanted) <= names
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith((".git", "build"))]
