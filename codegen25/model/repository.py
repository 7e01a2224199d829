"""A model's repository on the hub: its files listed, downloaded, and held to their hashes.

huggingface_hub lists them, and follows HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE. Its downloads compare sizes alone and
begin anew in every process; ours (`resume.py`) go on where they were cut off. Hashes are the SHA-256 of large files,
git's SHA-1 of the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from codegen25.data.plain import first_line, plain
from codegen25.errors import CodegenError
from codegen25.model.resume import save

# What is wanted beside the weights. Custom code is never run; CodeGen2's is read for a number (`older.py`).
BESIDE = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "modeling_codegen.py", "README.md", "LICENSE*", "NOTICE*",
)  # fmt: skip
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class RemoteFile:
    """`hash` is `sha256:…` of its bytes, or `git:…`, git's name of it."""

    name: str
    size: int
    hash: str


@dataclass(frozen=True)
class Repository:
    """A commit of the model `name`, a hub id.

    `license` is what its makers declare, "" where they do not; `model_type` the architecture, as in its config.
    """

    name: str
    commit: str
    license: str
    model_type: str
    files: Mapping[str, RemoteFile]

    def beside(self) -> list[str]:
        """The small files that go with the weights, the index of their shards among them."""
        index = [name for stem in WEIGHTS if (name := f"{stem}.index.json") in self.files][:1]
        return [*sorted(name for name in self.files if any(fnmatch(name, pattern) for pattern in BESIDE)), *index]

    def weights(self, folder: Path) -> list[RemoteFile]:
        """The files that hold the weights, safetensors where there are any; `folder` has what is `beside` them.

        Raises `CodegenError` when there are none, or the index names what is not there.
        """
        for stem in WEIGHTS:
            if (index := f"{stem}.index.json") in self.files:
                return [self._shard(index, name) for name in self._indexed(folder / index)]
            if stem in self.files:
                return [self.files[stem]]
        raise CodegenError(f"{self.name}: has no {' or '.join(WEIGHTS)} on the hub; name another model")

    def _indexed(self, path: Path) -> Sequence[object]:
        try:
            return list(dict.fromkeys(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CodegenError(f"{self.name}: {path.name} is no index of shards; name another model") from error

    def _shard(self, index: str, name: object) -> RemoteFile:
        if not isinstance(name, str) or Path(name).name != name or name not in self.files:
            raise CodegenError(f"{self.name}: {index} names {name!r}, which is not there; name another model")
        return self.files[name]

    def download(self, name: str, folder: Path) -> Path:
        """The file `name`, whole and as the hub lists it, in `folder`; what was cut off before goes on at its byte.

        Raises `CodegenError` when it cannot be had, and when it is not what the hub lists: it is removed then.
        """
        from huggingface_hub import get_token, hf_hub_url

        path, file = folder / name, self.files[name]
        if path.is_file() and hash_of(path, file.hash) == file.hash:
            return path
        url = hf_hub_url(self.name, name, revision=self.commit)
        aside = path.with_name(f"{name}.incomplete")
        with network(self.name):
            save(url, aside, file.size, get_token(), name)
        self._check(name, aside)
        aside.replace(path)
        return path

    def _check(self, name: str, path: Path) -> None:
        """Remove what is not as the hub lists it, and raise `CodegenError`."""
        wanted = self.files[name].hash
        if hash_of(path, wanted) == wanted:
            return
        path.unlink()
        raise CodegenError(
            f"{self.name}: {name} did not arrive as the hub lists it ({wanted[:20]}…); it was removed, try again"
        )


def hash_of(path: Path, like: str) -> str:
    """The hash of a file, of the kind that `like` is."""
    if like.startswith("git:"):
        data = path.read_bytes()
        header = b"blob %d\0" % len(data)
        return f"git:{hashlib.sha1(header + data).hexdigest()}"
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def look_up(name: str) -> Repository:
    """The newest commit of a model. Raises `CodegenError` when the hub cannot be asked, or has no such model."""
    try:
        from huggingface_hub import HfApi
    except ModuleNotFoundError as error:
        raise CodegenError(f"{name}: fetching it needs {error.name}; pip install 'codegen25[hub]'") from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with network(name):
        info = HfApi().model_info(name, files_metadata=True)
    licenses = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    files = {}
    for sibling in info.siblings or ():
        if "/" in sibling.rfilename or "\\" in sibling.rfilename:
            continue  # nothing of a model lies in folders, and nothing is to be written outside of ours
        hash = f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"
        files[sibling.rfilename] = RemoteFile(sibling.rfilename, sibling.size or 0, hash)
    model_type = str((getattr(info, "config", None) or {}).get("model_type", ""))
    return Repository(name, str(info.sha), plain(licenses[0]) if licenses else "", model_type, files)


def _raised() -> tuple[type[Exception], ...]:
    """What a request may raise. The client lets its HTTP library's errors through."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, RuntimeError, ValueError, *HfHubHTTPError.__bases__)


@contextmanager
def network(name: str) -> Iterator[None]:
    """Around calls of the client: what it raises, as one line."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RepositoryNotFoundError as error:
        status = error.response.status_code
        raise CodegenError(
            f"{name}: the hub has no such model, or not for you ({status}); check the name, and log in or set HF_TOKEN"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise CodegenError(
            f"{name}: not in the cache, and HF_HUB_OFFLINE forbids to fetch it; unset that, or name a folder"
        ) from None
    except _raised() as error:
        told = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
        raise CodegenError(
            f"{name}: cannot be fetched ({plain(first_line(str(told) or type(told).__name__))}); "
            "check the network and try again, it goes on where it stopped"
        ) from None
