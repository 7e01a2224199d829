"""Packages of the registry that npm is configured for, asked for by npm itself and never installed or run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from codegen25.data.shards import file_sha256
from codegen25.data.source import Source
from codegen25.errors import CodegenError

# A name in a registry, and nothing else that npm would take: an option, a folder, an address, a repository.
PACKAGE = re.compile(r"(?P<name>(?:@\w[\w.-]*/)?\w[\w.-]*)(?:@(?P<version>\w[\w.+-]*))?", re.ASCII)
TIMEOUT = 600


def find(name: str, version: str) -> Source:
    """A release of a package; `version` may be a tag. Raises CodegenError when the registry has none."""
    said = _npm(["view", "--json"], f"{name}@{version}", "version", "time")
    try:
        fields: dict[str, Any] = json.loads(said)
        exact = fields["version"]
        date = fields.get("time", {}).get(exact, "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CodegenError(f"npm:{name}@{version}: not one release; name a version that the registry has") from None
    with tempfile.TemporaryDirectory() as folder:
        digest = file_sha256(pack(f"{name}@{exact}", Path(folder)))
    return Source("npm", name, exact, f"npm:{name}@{exact}", f"sha256:{digest}", str(date))


def pack(package: str, folder: Path) -> Path:
    """The tarball of NAME@VERSION in `folder`, as the registry has it. Raises CodegenError when it cannot be had."""
    match = PACKAGE.fullmatch(package)
    if not (match and match["version"]):
        raise CodegenError(f"npm:{package}: not a release; write npm:NAME@VERSION")
    _npm(["pack", "--ignore-scripts", "--pack-destination", str(folder)], package)
    return next(folder.glob("*.tgz"))


def _npm(command: list[str], package: str, *fields: str) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise CodegenError("npm: not installed; install Node.js, which brings it, for packages of npm")
    try:
        done = subprocess.run(
            [npm, *command, "--", package, *fields], capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise CodegenError(f"npm:{package}: npm gave no answer in {TIMEOUT} seconds; check the network") from None
    if done.returncode:
        raise CodegenError(f"npm:{package}: {_why(done.stderr)}; check the name, the network and npm's configuration")
    return done.stdout


def _why(said: str) -> str:
    """The line of npm's complaint that says most: behind that with the code."""
    lines = [line.partition("error ")[2].strip() for line in said.splitlines() if "error " in line]
    told = [line for line in lines if line and not line.startswith(("code ", "errno ", "syscall "))]
    return next(iter([*told, *lines]), "npm failed")
