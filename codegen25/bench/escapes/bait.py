"""What escapes are after, laid out on the side of the judge: a file with a secret, a folder that can be written to,
listening sockets, a variable. `touched` tells what of it was found. Imports the standard library only."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

VARIABLE = "CODEGEN25_BAIT"


class Bait:
    """Laid out while the context lasts, under a fresh folder of `below` (by default that for temporary files)."""

    def __init__(self, below: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="codegen25-bait-", dir=below, ignore_cleanup_errors=True)
        self.root = Path(self._folder.name)
        self.root.chmod(0o755)
        self.outside = self.root / "outside"
        self.outside.mkdir()
        self.outside.chmod(0o777)
        self.file = self.root / "secret"
        self.file.write_text("secret\n")
        self.abstract = f"codegen25-bait-{os.getpid()}-{self.root.name[-8:]}"
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._unix = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for listener, address in zip(self._unix, (str(self.root / "socket"), f"\0{self.abstract}"), strict=True):
            listener.bind(address)
            listener.listen()
        for listener in (self._tcp, *self._unix):
            listener.setblocking(False)
        (self.root / "socket").chmod(0o777)

    def __enter__(self) -> Self:
        os.environ[VARIABLE] = "secret"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        os.environ.pop(VARIABLE, None)
        for listener in (self._tcp, *self._unix):
            listener.close()
        self._folder.cleanup()

    def filled_in(self, source: str) -> str:
        """The source of an escape with the bait's names."""
        names = {
            "FILE": self.file, "OUTSIDE": self.outside, "PORT": self._tcp.getsockname()[1],
            "SOCKET": self.root / "socket", "ABSTRACT": self.abstract, "ENV": VARIABLE,
        }  # fmt: skip
        for name, value in names.items():
            source = source.replace(f"@{name}@", str(value))
        return source

    def touched(self) -> str:
        """What was reached since the last time, "" for nothing."""
        found = [f"wrote {path.name}" for path in self.outside.iterdir()]
        for path in self.outside.iterdir():
            path.unlink()
        if {path.name for path in self.root.iterdir()} != {"outside", "secret", "socket"}:
            found.append("wrote beside the secret")
        for listener in (self._tcp, *self._unix):
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                continue
            found.append("connected")
        return ", ".join(found)
