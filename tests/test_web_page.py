"""The page at `/`: how it is served, and that it is the one of its sources. `test_web_browser.py` uses it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Running, serving
from web import WEB, needs_node, npm

from codegen25.serve import page
from codegen25.serve.app import Access

KEY = "a key for the page's tests"

with_sources = pytest.mark.skipif(not WEB.exists(), reason="no editors/ beside these tests")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def keyed() -> Iterator[Running]:
    with serving(access=Access(keys=(KEY.encode(),))) as running:
        yield running


# -------------------------------------------------------------------------------------------------------- the route


def test_a_document_and_all_that_it_names(server: Running) -> None:
    reply = server.ask("/")
    assert reply.status == 200 and reply.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(rb'(?:href|src)="([^"]+)"', reply.body)
    kinds = {}
    for path in named:
        found = server.ask(path.decode())
        assert found.status == 200 and found.headers["x-content-type-options"] == "nosniff", path
        kinds[path.rpartition(b".")[2]] = found.headers["content-type"]
    assert kinds == {
        b"js": "text/javascript; charset=utf-8",
        b"css": "text/css; charset=utf-8",
        b"svg": "image/svg+xml",
        b"txt": "text/plain; charset=utf-8",
    }


def test_nothing_inline_and_nothing_from_elsewhere(server: Running) -> None:
    policies, nonces = set(), set()
    for _ in range(2):
        reply = server.ask("/")
        rules = dict(rule.strip().split(" ", 1) for rule in reply.headers["content-security-policy"].split(";"))
        (nonce,) = re.findall(r"'nonce-([\w-]{20,})'", rules.pop("style-src"))
        assert f'name="style-nonce" content="{nonce}"'.encode() in reply.body
        nonces.add(nonce)
        policies.add(tuple(sorted(rules.items())))
    assert len(nonces) == 2, "a nonce is used once"
    ((*rules_of_both,),) = policies
    rules = dict(rules_of_both)
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert not re.search(rb"<script(?![^>]* src=)|<style|\son\w+=|https?://", reply.body)


def test_a_browser_keeps_files_and_asks_whether_they_are_still_these(server: Running) -> None:
    first = server.ask("/page/page.js")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for asked in (tag, f'W/{tag}, "other"', "*"):
        again = server.ask("/page/page.js", If_None_Match=asked)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert server.ask("/page/page.js", If_None_Match='"other"').body == first.body
    assert server.ask("/").headers["cache-control"] == "no-store", "its nonce is used once"


@pytest.mark.parametrize(
    "path",
    [
        "/page/", "/page/index.html", "/page/build.json", "/page/../page.py", "/page/..%2fpage.py",
        "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/page.js/", "/page/page.js%00", "/page/..\\page.py",
        "/page.py", "//page/page.js",
    ],
)  # fmt: skip
def test_no_other_file_is_there(server: Running, keyed: Running, path: str) -> None:
    assert server.ask(path).status == 404
    assert keyed.ask(path).status == 401


def test_only_reading(server: Running) -> None:
    assert server.ask("/", raw=b"{}").status == 405
    assert server.ask("/page/page.js", raw=b"{}").status == 405


def test_the_page_comes_without_a_key_and_the_model_does_not(keyed: Running) -> None:
    assert keyed.ask("/").status == keyed.ask("/page/page.js").status == 200
    assert keyed.ask("/v1/models").status == keyed.ask("/docs").status == 401


def test_a_host_name_that_is_not_ours_gets_no_page(server: Running) -> None:
    assert server.ask("/", Host="evil.example").status == server.ask("/page/page.js", Host="evil.example").status == 421


def test_a_page_that_is_not_built_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    with serving() as running:
        reply = running.ask("/")
        assert reply.status == 404 and "make web" in reply.json["error"]["message"]
        assert running.ask("/health").status == 200


# -------------------------------------------------------------------------------------------------------- the build


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _record() -> dict[str, dict[str, str]]:
    return json.loads((page.FOLDER / "build.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def test_the_page_is_as_it_was_built() -> None:
    files = {file.name: _digest(file) for file in page.FOLDER.iterdir() if file.name != "build.json"}
    assert files == _record()["files"], "`make web` writes codegen25/serve/page; nobody else does"


@with_sources
def test_the_page_is_built_from_these_sources() -> None:
    sources = _record()["sources"]
    found = {name: _digest(WEB / name) for name in sources if (WEB / name).is_file()}
    assert found == sources, "sources have changed; run `make web`"
    there = {file.relative_to(WEB).as_posix() for folder in ("src", "public") for file in (WEB / folder).rglob("*.*")}
    assert there <= set(sources), "there are new sources; run `make web`"


@with_sources
def test_the_lock_names_no_registry() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def test_what_is_in_the_page_has_its_licence_beside_it() -> None:
    texts = (page.FOLDER / "licences.txt").read_text(encoding="utf-8").split("-" * 80)
    names = {text.split()[0] for text in texts}
    assert {"@codemirror/state", "@codemirror/view", "@lezer/common", "style-mod"} <= names
    assert all("MIT" in text and "Copyright" in text for text in texts)


@pytest.mark.slow
@needs_node
def test_its_own_tests_pass() -> None:
    npm("test")


@pytest.mark.slow
@needs_node
def test_building_again_makes_the_same_page(tmp_path: Path) -> None:
    npm("run", "build", "--", "--outDir", str(tmp_path))
    assert {file.name: _digest(file) for file in tmp_path.iterdir()} == {
        file.name: _digest(file) for file in page.FOLDER.iterdir()
    }
