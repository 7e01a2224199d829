"""What a source says of itself at its top: which file says it, its name and version, its licence."""

from __future__ import annotations

import email
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from codegen25.data.source import Metadata

# The first of them that says anything is believed: PKG-INFO is made of pyproject.toml, and says more.
MANIFESTS = ("PKG-INFO", "pyproject.toml", "package.json")
_PYTHON_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)
_PYTHON_VERSION = re.compile(r"[\w.!+-]+", re.ASCII)
_NPM_NAME = re.compile(r"(?:@[\w.~-]+/)?[\w.~-]+", re.ASCII)
_NPM_VERSION = re.compile(r"[\w.+-]+", re.ASCII)


def normalized(name: str) -> str:
    """The one spelling of a Python package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def top_metadata(files: Mapping[str, bytes]) -> Metadata:
    """The metadata of a folder or a repository, from those of MANIFESTS that it has at its top."""
    for name in MANIFESTS:
        text = files.get(name, b"").decode("utf-8", "replace")
        if name == "pyproject.toml":
            text = project_metadata(text)
        if text:
            return Metadata("npm" if name == "package.json" else "python", name, text)
    return Metadata("")


def project_metadata(text: str) -> str:
    """What the [project] table of a pyproject.toml says of the licence, as lines of METADATA; "" for nothing."""
    try:
        project: Any = tomllib.loads(text).get("project")
    except (tomllib.TOMLDecodeError, RecursionError):
        return ""
    if not isinstance(project, dict):
        return ""
    license, classifiers = project.get("license"), project.get("classifiers")
    lines = []
    if isinstance(license, str):
        lines.append(f"License-Expression: {_one_line(license)}")
    elif isinstance(license, dict) and isinstance(license.get("text"), str):
        # The lines of a text after its first are set in, as setuptools does it.
        lines.append(f"License: {license['text'].strip()}".replace("\n", "\n        "))
    if isinstance(classifiers, list):
        lines += [f"Classifier: {_one_line(one)}" for one in classifiers if str(one).startswith("License ::")]
    return "".join(f"{line}\n" for line in lines)


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def identity(metadata: Metadata) -> tuple[str, str] | None:
    """Name and version that the metadata gives, a Python name normalised; None where it gives no such thing."""
    if metadata.kind == "npm":
        name, version = _npm_fields(metadata.text)
        known = _NPM_NAME.fullmatch(name) and _NPM_VERSION.fullmatch(version)
        return (name, version) if known else None
    message = email.message_from_string(metadata.text.partition("\n\n")[0])
    name, version = str(message.get("Name", "")).strip(), str(message.get("Version", "")).strip()
    known = _PYTHON_NAME.fullmatch(name) and _PYTHON_VERSION.fullmatch(version)
    return (normalized(name), version) if known else None


def _npm_fields(text: str) -> tuple[str, str]:
    try:
        fields = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return "", ""
    name, version = (fields.get("name"), fields.get("version")) if isinstance(fields, dict) else ("", "")
    return (name if isinstance(name, str) else ""), (version if isinstance(version, str) else "")
