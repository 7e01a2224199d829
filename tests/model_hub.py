"""The Hugging Face Hub on this machine, for one model: as much of it as huggingface_hub asks for.

`python tests/model_hub.py FOLDER OWNER/MODEL` serves a folder until it is interrupted, and prints the HF_ENDPOINT.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from answering import answering

LARGE = (".safetensors", ".bin")
CHUNK = 1 << 20


class ModelHub:
    """Serves `folder` as the model `name`, at `commit`. What is to go wrong is set on the way.

    `asked`: (method, path, Range, Authorization) of every request. `cut`: file to the bytes after which its connection
    is closed, once; `at_cut` is called before that. `status`: what every request is refused with. `damaged`: files
    whose first byte is another. `ranges`: whether they are honoured.
    """

    def __init__(self, folder: Path, name: str, license: str = "apache-2.0") -> None:
        self.folder, self.name, self.license = folder, name, license
        self.commit = "0123456789abcdef0123456789abcdef01234567"
        self.asked: list[tuple[str, str, str | None, str | None]] = []
        self.cut: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.ranges = True
        self.status = 0
        self.at_cut: Callable[[], None] = lambda: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The SHA-256 of large files, git's SHA-1 of small ones."""
        found = {}
        for path in sorted(self.folder.iterdir()):
            if path.suffix in LARGE:
                with path.open("rb") as file:
                    found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
            else:
                data = path.read_bytes()
                found[path.name] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return found

    def info(self) -> dict[str, Any]:
        siblings = []
        for name, digest in self.hashes.items():
            size = (self.folder / name).stat().st_size
            sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": digest}
            if name.endswith(LARGE):
                sibling["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
            siblings.append(sibling)
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        tags = [f"license:{self.license}"] if self.license else []
        found = {"id": self.name, "sha": self.commit, "tags": tags, "siblings": siblings}
        return found | {"config": {"model_type": config.get("model_type")}}

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": one["rfilename"], "size": one["size"], "oid": one["blobId"]}
            | ({"lfs": {"oid": one["lfs"]["sha256"], "size": one["size"], "pointerSize": 134}} if "lfs" in one else {})
            for one in self.info()["siblings"]
        ]

    @contextmanager
    def running(self) -> Iterator[ModelHub]:
        with answering(self._server):
            yield self

    def gets(self, name: str) -> list[str | None]:
        """The ranges by which a file was asked for."""
        return [range for method, path, range, _ in self.asked if method == "GET" and path.endswith(f"/{name}")]

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """For a process that is to find this hub, with nothing in its caches."""
        keep = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return keep | {
            "HF_ENDPOINT": self.url, "HF_HOME": str(cache / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1",
            "PYTHONUTF8": "1",
        } | more  # fmt: skip

    def codegen25(self, cache: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "codegen25", *arguments]
        environment = self.environment(cache, **more)
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, stdin=-3)


def _handler(hub: ModelHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path, self.headers["Range"], self.headers["Authorization"]))
            api, files = f"/api/models/{hub.name}", f"/{hub.name}/resolve/"
            if hub.status:
                code = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}.get(hub.status, "")
                self._send(b"no", hub.status, {"X-Error-Code": code} if code else {})
            elif path in (api, f"{api}/revision/main", f"{api}/revision/{hub.commit}"):
                self._send(json.dumps(hub.info()).encode())
            elif path == f"{api}/tree/{hub.commit}":
                self._send(json.dumps(hub.tree()).encode())
            elif path.startswith(files) and (name := path.removeprefix(files).partition("/")[2]) in hub.hashes:
                self._file(name)
            else:
                code = "EntryNotFound" if path.startswith((api, files)) else "RepoNotFound"
                self._send(b"no", 404, {"X-Error-Code": code})

        def _file(self, name: str) -> None:
            path, digest = hub.folder / name, hub.hashes[name]
            size = path.stat().st_size
            first = self._first() if hub.ranges else 0
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
            if name.endswith(LARGE):
                headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size)}
            if first:
                headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
            self._headers(size - first, 206 if first else 200, headers)
            if self.command == "GET":
                self._body(name, first, size)

        def _first(self) -> int:
            return int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])

        def _body(self, name: str, first: int, size: int) -> None:
            cut = None if name not in hub.cut else hub.cut.pop(name)
            end = size if cut is None else min(size, first + cut)
            with (hub.folder / name).open("rb") as file:
                file.seek(first)
                while first < end:
                    chunk = file.read(min(CHUNK, end - first))
                    if first == 0 and name in hub.damaged:
                        chunk = bytes([chunk[0] ^ 1]) + chunk[1:]
                    self.wfile.write(chunk)
                    self.wfile.flush()
                    first += len(chunk)
            if cut is not None:
                hub.at_cut()
            self.close_connection = True

        def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self._headers(len(data), status, {"Content-Type": "application/json"} | (headers or {}))
            if self.command == "GET":
                self.wfile.write(data)

        def _headers(self, length: int, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(length)} | headers).items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def main(arguments: Sequence[str]) -> None:
    folder, name = arguments
    hub = ModelHub(Path(folder), name)
    print(f"HF_ENDPOINT={hub.url}", flush=True)
    hub.hashes  # noqa: B018 - they take a while, and a client does not wait
    print("ready", flush=True)
    with hub.running():
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
