"""Packages are found by the index that pip or npm is configured for, are what was locked, and are never run."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_server import HTML, JSON, Answer, Server, archive

from codegen25.data import download, pypi
from codegen25.data.index import describe, fetch, is_remote
from codegen25.data.source import Source
from codegen25.errors import CodegenError

NO_NPM = shutil.which("npm") is None
WHEEL, SDIST = "example-1.2-py3-none-any.whl", "example-1.2.tar.gz"
BOTH = "example-1.2-py2.py3-none-any.whl"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in [name for name in os.environ if name.lower() in {"http_proxy", "all_proxy", "no_proxy"}]:
        monkeypatch.delenv(name)
    with Server().running() as one:
        monkeypatch.setenv("PIP_INDEX_URL", f"{one.url}/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        monkeypatch.setenv("npm_config_registry", one.url)
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setenv("npm_config_update_notifier", "false")
        monkeypatch.setenv("npm_config_fetch_retries", "0")
        yield one


def refused(argument: str) -> str:
    with pytest.raises(CodegenError) as caught:
        describe(argument)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- Python


@pytest.mark.parametrize("html", [False, True])
def test_a_wheel_is_described_and_fetched(html: bool, server: Server, tmp_path: Path) -> None:
    server.index("example", "example-1.0-py3-none-any.whl", SDIST, WHEEL, html=html)
    (found,) = describe("pypi:Example==1.2")
    date = "" if html else "2024-01-01T00:00:00Z"
    assert found == Source("wheel", "example", "1.2", f"pypi:{WHEEL}", sha256(archive(WHEEL)), date)
    assert is_remote(found) and "127.0.0.1" not in repr(found)
    path = fetch(found, tmp_path / "cache")
    assert path == tmp_path / "cache" / f"{found.hash[7:]}.whl" and path.read_bytes() == archive(WHEEL)
    assert fetch(found, tmp_path / "cache") == path and server.count(f"/files/{WHEEL}") == 1
    assert list((tmp_path / "cache").iterdir()) == [path]


@pytest.mark.parametrize(
    "argument, files, chosen",
    [
        # Rather a wheel, unless it is compiled or the sources are asked for.
        ("example==1.2", [SDIST, WHEEL], WHEEL),
        ("example==1.2#sdist", [SDIST, WHEEL], SDIST),
        ("example==1.2", [SDIST, "example-1.2-cp311-cp311-manylinux_2_17_x86_64.whl"], SDIST),
        ("example==1.2", [SDIST, "example-1.2-py3-none-win_amd64.whl"], SDIST),
        # Of several that fit, the same whatever the order.
        ("example==1.2", [WHEEL, "example-1.2-py2-none-any.whl"], WHEEL),
        ("example==1.2", ["example-1.2-py2-none-any.whl", BOTH], BOTH),
        ("example==1.2", ["example-1.2.zip", SDIST], SDIST),
        # Versions are compared as versions.
        ("example==1.2.0", [SDIST], SDIST),
        ("example", ["example-1.9.tar.gz", "example-1.10.tar.gz"], "example-1.10.tar.gz"),
        ("example", ["example-1.0.tar.gz", "example-2.0rc1.tar.gz", "example-2.0.dev1.tar.gz"], "example-1.0.tar.gz"),
        ("example", ["example-1.0.post1.tar.gz", "example-1.0.tar.gz"], "example-1.0.post1.tar.gz"),
        ("example==2.0rc1", ["example-1.0.tar.gz", "example-2.0rc1.tar.gz"], "example-2.0rc1.tar.gz"),
        # The newest that can be read.
        ("example", ["example-2.0-cp311-cp311-win32.whl", SDIST], SDIST),
        ("example#sdist", ["example-1.3-py3-none-any.whl", SDIST], SDIST),
        # Other projects' files, and what is no release.
        ("example", ["example-extra-9.0.tar.gz", "example-9.exe", "example-old.tar.gz", "example-9.whl", SDIST], SDIST),
    ],
)  # fmt: skip
def test_which_file_is_chosen(argument: str, files: list[str], chosen: str, server: Server) -> None:
    for order in (files, files[::-1]):
        server.index("example", *order)
        assert [one.location for one in describe(f"pypi:{argument}")] == [f"pypi:{chosen}"]


@pytest.mark.parametrize("html", [False, True])
def test_what_was_taken_back_is_used_when_it_is_named_only(html: bool, server: Server) -> None:
    files = [server._file(name) for name in (SDIST, "example-1.3.tar.gz")]
    server.index("example", files[0], files[1] | {"yanked": "broken"}, html=html)
    assert describe("pypi:example")[0].version == "1.2"
    assert describe("pypi:example==1.3")[0].version == "1.3"


def test_names_are_compared_as_indexes_do(server: Server) -> None:
    server.index("a-b-c", "A.b_C-1.0.tar.gz")
    assert [(one.name, one.version) for one in describe("pypi:A_b.c")] == [("a-b-c", "1.0")]


@pytest.mark.parametrize("html", [False, True])
def test_an_index_without_hashes_is_asked_for_the_file(html: bool, server: Server) -> None:
    server.index("example", server._file(SDIST) | {"hashes": {}}, html=html)
    assert describe("pypi:example")[0].hash == sha256(archive(SDIST))


def test_what_the_index_does_not_have(server: Server) -> None:
    server.index("example", SDIST, "example-2.0-cp311-cp311-win32.whl")
    server.index("betas", "betas-1.0b1.tar.gz")
    assert refused("pypi:example==3").startswith("pypi:example==3: the index has no wheel or sdist")
    assert refused("pypi:example==2.0").startswith("pypi:example==2.0: the index has no wheel or sdist")
    assert refused("pypi:betas").startswith("pypi:betas: the index has no")
    assert refused("pypi:nothing").startswith("pypi:nothing: not found")
    assert refused("pypi:example==latest!").startswith("pypi:example==latest!: not a version")


@pytest.mark.parametrize(
    "argument", ["pypi:", "pypi:../simple", "pypi:a b", "pypi:-r", "pypi:a>=1", "pypi:a==1#wheel", "npm:", "npm:--help",
                 "npm:./folder", "npm:git+ssh://a.b/c", "npm:a/b", "npm:file:x", "npm:@scope", "npm:a@^1", "a:b"],
)  # fmt: skip
def test_what_names_no_package(argument: str, server: Server) -> None:
    assert "not a package; write pypi:NAME==VERSION or npm:NAME@VERSION" in refused(argument)
    assert server.asked == []


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"files": [1]}', b'{"files": [{"filename": "a"}]}', b"\xff", b"[" * 99999]
)
def test_a_page_that_lists_nothing(data: bytes, server: Server) -> None:
    server.answers["/simple/example/"] = Answer(data, JSON)
    assert refused("pypi:example").startswith("127.0.0.1: not a list of files")


@given(
    st.binary(max_size=200) | st.text(st.sampled_from('<a href="x.tar.gz#sha256=">&;/'), max_size=80).map(str.encode)
)
def test_any_page_of_html_is_read(data: bytes) -> None:
    for file in pypi.files(download.Page("https://example.com/simple/a/", HTML, data)):
        assert file.sha256 == "" or len(file.sha256) == 64


def test_links_start_from_the_base_and_lose_their_escapes() -> None:
    page = b'<base href="/other/"><a href="a%2B1-1.0.tar.gz">a</a><a>none</a><a href="http://[">no address</a>'
    (found,) = pypi.files(download.Page("https://example.com/simple/a/", HTML, page))
    assert (found.name, found.url) == ("a+1-1.0.tar.gz", "https://example.com/other/a%2B1-1.0.tar.gz")


# ---------------------------------------------------------------------------------------------- which index, and login


def test_indexes_are_asked_in_order_and_the_first_that_has_it_counts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.index("example", SDIST)
    for name in ("example", "other"):
        file = f"{name}-9.0.tar.gz"
        server.answers[f"/more/{name}/"] = Answer(f'<a href="/files/{file}#sha256={"0" * 64}">x</a>'.encode(), HTML)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file:///nowhere {server.url}/more")
    assert describe("pypi:example")[0].version == "1.2"
    assert describe("pypi:other")[0].version == "9.0"


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_no_other_index_stands_in_for_one_that_is_not_to_be_had(
    status: int, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/private/example/"] = Answer(b"", HTML, status)
    server.index("example", SDIST)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/private")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server.url}/simple")
    assert refused("pypi:example").startswith(f"127.0.0.1: {status}")


def test_the_login_of_an_index_is_told_to_its_host_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    with Server().running() as other:
        other.answers["/stored"] = Answer(archive(SDIST))
        sent_on = Answer(b"", HTML, 302, {"Location": f"{other.url}/stored"})
        files = [server._file(name) for name in (SDIST, "example-1.3.tar.gz")]
        server.answers[f"/files/{SDIST}"] = sent_on
        files[1]["url"] = f"{server.url}/files/example-1.3.tar.gz"
        server.index("example", *files)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://me:p%40ss@127.0.0.1:{server.port}/simple")
        for argument in ("pypi:example==1.2", "pypi:example==1.3"):
            (found,) = describe(argument)
            assert "p%40ss" not in repr(found)
            fetch(found, tmp_path)
        assert {told for _, told in server.asked} == {login}
        assert [told for _, told in other.asked] == [None]
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:p%40ss@127.0.0.1:1/simple")
    assert "p%40ss" not in refused("pypi:example")


def test_the_settings_of_pip_are_read(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one.example.com/simple\nextra-index-url =\n  https://two.example.com\n"
        "  https://three.example.com/it's\n[install]\nindex-url = https://last.example.com/simple\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(
        command, capture_output=True, text=True, check=True, env=clean | {"PIP_CONFIG_FILE": str(config)}
    )
    said = pypi.configured(listed.stdout)
    assert said["index-url"] == "https://last.example.com/simple"
    assert said["extra-index-url"].split() == ["https://two.example.com", "https://three.example.com/it's"]


def test_pip_says_which_index_it_asks_by_itself() -> None:
    assert pypi._default().startswith("https://")


# -------------------------------------------------------------------------------------------------------------- fetch


def test_what_comes_damaged_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.index("example", SDIST)
    (found,) = describe("pypi:example")
    server.answers[f"/files/{SDIST}"] = [Answer(b"damaged"), Answer(archive(SDIST))]
    assert fetch(found, tmp_path).read_bytes() == archive(SDIST)


def test_another_archive_than_was_locked_is_refused_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.index("example", SDIST)
    (found,) = describe("pypi:example")
    server.answers[f"/files/{SDIST}"] = Answer(b"another")
    with pytest.raises(
        CodegenError, match=r"^example: what the index gives is not what was locked \(example-1.2.tar.gz\)"
    ):
        fetch(found, tmp_path)
    server.answers[f"/files/{SDIST}"] = Answer(archive(SDIST)[:-1], length=len(archive(SDIST)))
    with pytest.raises(CodegenError, match=r"^127.0.0.1: the connection ended early"):
        fetch(found, tmp_path)
    server.index("example", WHEEL)
    with pytest.raises(CodegenError, match=r"^pypi:example: the index does not have example-1.2.tar.gz"):
        fetch(found, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cached_archive_that_changed_is_to_be_removed(server: Server, tmp_path: Path) -> None:
    server.index("example", SDIST)
    (found,) = describe("pypi:example")
    path = fetch(found, tmp_path)
    path.write_bytes(b"changed")
    with pytest.raises(CodegenError) as caught:
        fetch(found, tmp_path)
    assert str(caught.value) == f"{path}: is not what was fetched; remove it"
    path.unlink()
    assert fetch(found, tmp_path).read_bytes() == archive(SDIST)


@pytest.mark.parametrize("digest", ["", "git:" + "0" * 40])
def test_what_has_no_hash_is_not_fetched(digest: str, server: Server, tmp_path: Path) -> None:
    source = Source("sdist", "example", "1.2", f"pypi:{SDIST}", digest)
    with pytest.raises(CodegenError, match="has no sha256"):
        fetch(source, tmp_path)
    assert server.asked == [] and list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    server.index("example", SDIST)
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(CodegenError, match=r"cache: .*; free space, or choose another cache"):
        fetch(describe("pypi:example")[0], tmp_path / "cache")


@pytest.mark.parametrize(
    "address", ["file:///etc/hostname", "ftp://example.com/a", "data:,a", "//[", "http://[", "http:///"]
)
def test_only_the_network_is_asked(address: str, server: Server, tmp_path: Path) -> None:
    server.index("example", server._file(SDIST) | {"url": address, "hashes": {}})
    refused("pypi:example")


def test_more_than_fits_is_not_read_on(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.index("example", SDIST)
    (found,) = describe("pypi:example")
    monkeypatch.setattr(download, "MAX_ARCHIVE", 10)
    with pytest.raises(CodegenError, match="more than 10 bytes"):
        fetch(found, tmp_path)
    monkeypatch.setattr(download, "MAX_PAGE", 10)
    assert "more than 10 bytes" in refused("pypi:example")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------------- npm


@pytest.mark.skipif(NO_NPM, reason="npm is not installed")
@pytest.mark.parametrize("name", ["example", "@scope/example"])
def test_a_package_of_npm(name: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    balls = server.registry(name, ["1.0.0", "2.0.0"])
    (old,), (new,) = describe(f"npm:{name}@1.0.0"), describe(f"npm:{name}")
    assert old == Source("npm", name, "1.0.0", f"npm:{name}@1.0.0", sha256(balls["1.0.0"]), "2023-01-01T00:00:00.000Z")
    assert (new.version, new.hash) == ("2.0.0", sha256(balls["2.0.0"]))
    path = fetch(old, tmp_path / "cache")
    assert path.name == f"{old.hash[7:]}.tgz" and path.read_bytes() == balls["1.0.0"]
    with pytest.raises(CodegenError, match="is not what was locked"):
        fetch(replace(old, hash=new.hash), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [path]
    assert not list(tmp_path.rglob("ran")), "no script of the package ran"


@pytest.mark.skipif(NO_NPM, reason="npm is not installed")
def test_what_the_registry_does_not_have(server: Server) -> None:
    server.registry("example", ["1.0.0"])
    assert refused("npm:example@3.0.0").startswith("npm:example@3.0.0: ")
    assert refused("npm:nothing").startswith("npm:nothing@latest: ")


@pytest.mark.parametrize(
    "name", ["--help@1", "../up@1", "git+file:///x@1", "https://example.com/a.tgz", "a", "a@^1", "a@"]
)
def test_a_lock_cannot_have_npm_do_anything_else(name: str, server: Server, tmp_path: Path) -> None:
    source = Source("npm", "example", "1", f"npm:{name}", "sha256:" + "0" * 64)
    with pytest.raises(CodegenError, match="not a release"):
        fetch(source, tmp_path)
    assert server.asked == [] and list(tmp_path.iterdir()) == []


def test_without_npm(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refused("npm:example").startswith("npm: not installed")
