"""An index of Python packages and a registry of npm's on this machine, as small as clients allow."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from answering import answering

JSON, HTML, BYTES = "application/vnd.pypi.simple.v1+json", "text/html", "application/octet-stream"


@dataclass
class Answer:
    """What an address gives: with a status, headers, and a `length` that may be a lie."""

    data: bytes
    kind: str = BYTES
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


class Server:
    """Answers by address; a list is answered from one by one. `asked` has every address with its Authorization."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers["Authorization"]))
                found = server.answers.get(self.path, Answer(b"no", status=404))
                answer = found.pop(0) if isinstance(found, list) else found
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                self.send_header("Content-Length", str(len(answer.data) if answer.length is None else answer.length))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        with answering(self._server):
            yield self

    def count(self, address: str) -> int:
        return sum(1 for path, _ in self.asked if path == address)

    def index(self, name: str, *files: dict[str, Any] | str, html: bool = False) -> None:
        """A project's page, of file names or of files as PEP 691 has them, with archives that hold their own names."""
        listed = [self._file(one) if isinstance(one, str) else one for one in files]
        if html:
            links = [
                f'<a href="{it["url"]}#sha256={it["hashes"].get("sha256")}"{" data-yanked" * bool(it["yanked"])}></a>'
                for it in listed
            ]
            page = Answer(f"<!DOCTYPE html><html><body>{'<br>'.join(links)}</body></html>".encode(), HTML)
        else:
            page = Answer(json.dumps({"meta": {"api-version": "1.1"}, "files": listed}).encode(), JSON)
        self.answers[f"/simple/{name}/"] = page

    def _file(self, name: str) -> dict[str, Any]:
        data = archive(name)
        self.answers[f"/files/{name}"] = Answer(data)
        hashes = {"sha256": hashlib.sha256(data).hexdigest()}
        date = f"2024-01-{len(name) % 28 + 1:02d}T00:00:00Z"
        return {"filename": name, "url": f"../../files/{name}", "hashes": hashes, "upload-time": date, "yanked": False}

    def registry(self, name: str, versions: list[str]) -> dict[str, bytes]:
        """A package of npm's, its last version the latest; the tarballs by version."""
        balls = {version: tarball(name, version) for version in versions}
        said: dict[str, Any] = {"name": name, "dist-tags": {"latest": versions[-1]}, "versions": {}, "time": {}}
        for version, data in balls.items():
            digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
            address = f"/balls/{name.replace('/', '-')}-{version}.tgz"
            dist = {"tarball": self.url + address, "integrity": f"sha512-{digest}"}
            said["versions"][version] = {"name": name, "version": version, "dist": dist}
            said["time"][version] = f"2023-0{len(said['time']) + 1}-01T00:00:00.000Z"
            self.answers[address] = Answer(data)
        self.answers[f"/{name.replace('/', '%2f')}"] = Answer(json.dumps(said).encode(), "application/json")
        return balls


def archive(name: str) -> bytes:
    """An archive that can be read, with its name in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("name"), name)
    return buffer.getvalue()


def tarball(name: str, version: str) -> bytes:
    """An npm package whose scripts leave a file named `ran` where they run."""
    script = "touch ran"
    manifest = {
        "name": name,
        "version": version,
        "scripts": dict.fromkeys(["prepack", "prepare", "preinstall", "install", "postinstall"], script),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for path, data in (("package/package.json", json.dumps(manifest).encode()), ("package/index.js", b"1\n")):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
