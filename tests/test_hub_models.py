"""Models fetched from a hub: whole and as it lists them, quantized on the way, gone on with, or one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from fetching import MONO, SHAPE, SHARDS, Serve, caches, constants, one_line, published, serve, silent
from model_hub import ModelHub
from publisher_folder import CONFIG, write_publisher_folder
from safetensors.torch import load_file, save_file

from codegen25.complete import find, load
from codegen25.config import ModelConfig
from codegen25.model import hub as hub_module
from codegen25.model import resume
from codegen25.model.cached import WHOLE, fetched, origin, place
from codegen25.model.folder import resolve
from codegen25.model.hub import fetch, fetch_whole
from codegen25.model.quantize import quantize
from codegen25.model.weights import Folder, same

__all__ = ["caches", "published", "serve"]  # the fixtures


def assert_same_model(one: Path, other: Path) -> None:
    ours, theirs = (dict(Folder(folder, silent).weights()) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(same(weight, theirs[name]) for name, weight in ours.items())


# --------------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("bits", [4, 8])
def test_it_is_what_quantizing_the_folder_gives(bits: int, published: Path, serve: Serve, tmp_path: Path) -> None:
    hub = serve(published)
    said: list[str] = []
    folder = fetch(MONO, bits, notice=said.append)
    quantize(published, tmp_path / "q", bits=bits, notice=silent)
    assert_same_model(folder, tmp_path / "q")
    assert folder == place(MONO, bits) == fetched(MONO) == find(MONO, notice=pytest.fail)
    assert any("pad_token_id 0 is a known mistake" in line for line in said) and all("\n" not in line for line in said)
    config = json.loads((folder / "config.json").read_text())
    assert [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [50256] * 3
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, ".lock"}
    recorded = origin(folder)
    assert (recorded["repository"], recorded["commit"], recorded["license"]) == (MONO, hub.commit, "apache-2.0")
    assert recorded["files"][SHARDS[0]] == f"sha256:{hub.hashes[SHARDS[0]]}"
    assert not any(path.endswith(".py") for _, path, _, _ in hub.asked), "custom code was downloaded"


def test_it_runs_from_the_cache_without_a_network(
    published: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve(published)
    first = load(MONO, notice=silent).complete("x = ", max_tokens=3)
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(MONO, notice=pytest.fail).complete("x = ", max_tokens=3) == first
    assert len(hub.asked) == asked
    assert resolve(MONO) == place(MONO, 8)


def test_bits_that_were_asked_for(published: Path, serve: Serve) -> None:
    serve(published)
    fetch(MONO, 4, notice=silent)
    assert find(MONO) == place(MONO, 4)
    assert find(MONO, bits=8, notice=silent) == place(MONO, 8)
    assert load(MONO, bits=4, notice=pytest.fail).complete("x", max_tokens=1).tokens


def test_at_full_depth(serve: Serve, tmp_path: Path) -> None:
    """32 layers, narrow: 323 entries in the index of the `.bin` files, with buffers that transformers wrote then."""
    shape = ModelConfig(51200, 64, 128, 32, 2, 2, 32, 2048)
    write_publisher_folder(tmp_path / "deep", shape=shape)
    index = json.loads((tmp_path / "deep" / "pytorch_model.bin.index.json").read_text())["weight_map"]
    assert len(index) == 323 and len(set(index.values())) == 3
    shutil.copytree(tmp_path / "deep", tmp_path / "bins", ignore=shutil.ignore_patterns("*safetensors*"))
    texts = []
    for folder in ("deep", "bins"):
        hub = serve(tmp_path / folder, f"owner/{folder}")
        kept = fetch(hub.name, 4, notice=silent)
        texts.append(load(hub.name, notice=pytest.fail).complete("def f(", max_tokens=4))
        assert load(str(tmp_path / folder), bits=4, notice=silent).complete("def f(", max_tokens=4) == texts[-1]
    assert texts[0] == texts[1] and len(list(kept.glob("*.safetensors"))) == 3


def test_bins_are_taken_where_there_is_nothing_else(serve: Serve, tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "bins", safetensors=False, shape=SHAPE)
    serve(tmp_path / "bins")
    folder = fetch(MONO, 8, notice=silent)
    quantize(tmp_path / "bins", tmp_path / "q", bits=8, notice=silent)
    assert_same_model(folder, tmp_path / "q")


def test_a_newer_commit_takes_its_place(published: Path, serve: Serve, tmp_path: Path) -> None:
    hub = serve(published)
    fetch(MONO, 4, notice=silent)
    asked = len(hub.asked)
    fetch(MONO, 4, notice=pytest.fail)
    assert len(hub.asked) == asked + 1, "more than the commit was asked for"
    hub.commit = "f" * 40
    folder = fetch(MONO, 4, notice=silent)
    assert origin(folder)["commit"] == "f" * 40 and {p.name for p in folder.parent.iterdir()} == {"int4", ".lock"}


def test_whole(published: Path, serve: Serve) -> None:
    serve(published)
    folder = fetch_whole(MONO, notice=silent)
    for path in (folder / name for name in (*SHARDS, "config.json", "README.md")):
        assert path.read_bytes() == (published / path.name).read_bytes()
    assert resolve(MONO) == folder == find(MONO, dtype="float32") == place(MONO, WHOLE)
    assert fetched(MONO) is None


def test_the_command_as_a_user_would(published: Path, tmp_path: Path) -> None:
    """In processes that learn everything from the environment."""
    hub = ModelHub(published, MONO)
    with hub.running():
        cache = tmp_path / "cache"
        done = hub.codegen25(cache, "complete", "x = ", "--model", MONO, "--max-tokens", "2", HF_TOKEN="hf_secret")
        assert (done.returncode, bool(done.stdout)) == (0, True), done.stderr
        assert {login for _, _, _, login in hub.asked} == {"Bearer hf_secret"}
        assert all(line.startswith("codegen25: ") for line in done.stderr.splitlines()), "a bar is no line for a file"
        again = hub.codegen25(cache, "complete", "x = ", "--model", MONO, "--max-tokens", "2", HF_HUB_OFFLINE="1")
        assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")
        other = hub.codegen25(cache, "fetch", "owner/other", HF_HUB_OFFLINE="1")
        assert other.returncode == 1 and len(other.stderr.splitlines()) == 1 and "HF_HUB_OFFLINE" in other.stderr


# ------------------------------------------------------------------------------------------------------------- going on


def test_a_download_that_was_cut_off_goes_on_at_its_byte(published: Path, serve: Serve, tmp_path: Path) -> None:
    hub = serve(published)
    hub.cut[SHARDS[1]] = 100_000
    folder = fetch(MONO, 8, notice=silent)
    assert hub.gets(SHARDS[1]) == [None, "bytes=100000-"]
    quantize(published, tmp_path / "q", bits=8, notice=silent)
    assert_same_model(folder, tmp_path / "q")


def test_stopped_it_goes_on_behind_what_is_done(published: Path, tmp_path: Path) -> None:
    """Interrupted in the middle of the third shard's download."""
    hub = ModelHub(published, MONO)
    hub.cut[SHARDS[2]] = 50_000
    with hub.running():
        environment = hub.environment(tmp_path / "cache")
        command = [sys.executable, "-m", "codegen25", "fetch", MONO]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)

        def interrupt() -> None:
            while not any(path.stat().st_size == 50_000 for path in tmp_path.rglob(f"{SHARDS[2]}.incomplete")):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            process.wait()

        hub.at_cut = interrupt
        _, said = process.communicate()
        assert process.returncode == 130 and "Traceback" not in said
        assert fetched(MONO) is None
        one_line(lambda: resolve(MONO), MONO, "codegen25 fetch")
        assert hub.codegen25(tmp_path / "cache", "fetch", MONO).returncode == 0
    assert [len(hub.gets(shard)) for shard in SHARDS] == [1, 1, 2]
    assert hub.gets(SHARDS[2]) == [None, "bytes=50000-"]
    quantize(published, tmp_path / "q", bits=8, notice=silent)
    assert_same_model(place(MONO, 8), tmp_path / "q")


def test_a_server_without_ranges(published: Path, serve: Serve, tmp_path: Path) -> None:
    hub = serve(published)
    hub.ranges = False
    hub.cut[SHARDS[0]] = 50_000
    folder = fetch_whole(MONO, notice=silent)
    assert hub.gets(SHARDS[0]) == [None, "bytes=50000-"]
    assert (folder / SHARDS[0]).read_bytes() == (published / SHARDS[0]).read_bytes()


def test_a_tied_head_must_be_the_embedding(serve: Serve, tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "m", bins=False, shape=SHAPE, tie_word_embeddings=True)
    serve(tmp_path / "m", "owner/wrong")
    one_line(lambda: fetch("owner/wrong", 8, notice=silent), "ties lm_head.weight")
    embedding = load_file(tmp_path / "m" / SHARDS[0])["model.embed_tokens.weight"]
    head = load_file(tmp_path / "m" / SHARDS[2])
    save_file(head | {"lm_head.weight": embedding}, tmp_path / "m" / SHARDS[2])
    serve(tmp_path / "m", "owner/right")
    assert not any("lm_head" in name for name, _ in Folder(fetch("owner/right", 8, notice=silent), silent).weights())


def test_a_shard_goes_when_it_is_quantized(published: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(published)
    here: list[list[str]] = []
    write = hub_module._write_beside

    def look(repository: Any, config: Any, hf: Any, bits: int, source: Path, *rest: Any) -> None:
        here.append([path.name for path in source.glob("*.safetensors")])
        write(repository, config, hf, bits, source, *rest)

    monkeypatch.setattr(hub_module, "_write_beside", look)
    fetch(MONO, 4, notice=silent)
    assert here == [[]]


# ------------------------------------------------------------------------------------------------------------ bad input


def test_a_hash_that_does_not_match(published: Path, serve: Serve) -> None:
    hub = serve(published)
    for name in ("config.json", SHARDS[1]):
        hub.damaged = {name}
        for get in (lambda: fetch(MONO, 8, notice=silent), lambda: fetch_whole(MONO, notice=silent)):
            one_line(get, MONO, name, "did not arrive as the hub lists it")
    assert fetched(MONO) is None
    one_line(lambda: resolve(MONO), "codegen25 fetch")
    hub.damaged = set()
    fetch(MONO, 8, notice=silent)
    fetch_whole(MONO, notice=silent)
    assert len(hub.gets(SHARDS[0])) == 2, "what had arrived well was fetched again"


@pytest.mark.parametrize(
    "status, part", [(401, "HF_TOKEN"), (404, "check the name"), (403, "HF_TOKEN"), (500, "try again")]
)
def test_a_hub_that_refuses(status: int, part: str, published: Path, serve: Serve) -> None:
    hub = serve(published)
    hub.status = status
    one_line(lambda: fetch(MONO, 8, notice=silent), MONO, str(status), part)
    assert fetched(MONO) is None


def test_no_hub_at_all(serve: Serve, published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    one_line(lambda: fetch(MONO, 8, notice=silent), MONO, "check the network")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    one_line(lambda: fetch(MONO, 8, notice=silent), MONO, "HF_HUB_OFFLINE")
    one_line(lambda: fetch("no-id", 8, notice=silent), "no-id", "OWNER/MODEL")


def test_a_disk_that_is_full(published: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve(published)
    free = type(shutil.disk_usage("/"))(10**9, 10**9, 1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: free)
        for get in (lambda: fetch(MONO, 8, notice=silent), lambda: fetch_whole(MONO, notice=silent)):
            one_line(get, MONO, "MB of disk", "XDG_CACHE_HOME")
    assert hub.gets(SHARDS[0]) == []

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(resume, "_append", full)
    one_line(lambda: fetch(MONO, 8, notice=silent), MONO, "No space left")


def test_two_at_once(published: Path, serve: Serve) -> None:
    serve(published)
    with hub_module._alone(place(MONO, 8).parent):
        one_line(lambda: fetch(MONO, 4, notice=silent), "another process is fetching")


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"model_type": "gpt2"}, ["gpt2"]),
        ({"num_hidden_layers": 4000}, ["describes", "parameters"]),
        ({"hidden_size": 60, "num_attention_heads": 2}, ["does not divide into groups"]),
        ({"vocab_size": 51199}, ["51200"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["quantized already"]),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_said_before_its_weights_are_fetched(
    changes: dict[str, object], parts: list[str], published: Path, serve: Serve, tmp_path: Path
) -> None:
    shutil.copytree(published, tmp_path / "m")
    sizes = json.loads((published / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(CONFIG | sizes | changes))
    hub = serve(tmp_path / "m")
    one_line(lambda: fetch(MONO, 8, notice=silent), *parts)
    assert not any(hub.gets(shard) for shard in SHARDS)


def test_files_that_lie_elsewhere_are_left_out(
    published: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = serve(published)
    said = hub.info()
    said["siblings"] += [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in ("LICENSE/../../../x", "a/b")]
    monkeypatch.setattr(hub, "info", lambda: said)
    assert not any("/" in name for name in origin(fetch(MONO, 4, notice=silent))["files"])


def test_an_index_that_names_what_is_not_there(published: Path, serve: Serve, tmp_path: Path) -> None:
    for name in ("../../escape.safetensors", "model-00009-of-00003.safetensors", 3):
        folder = tmp_path / str(abs(hash(name)))
        shutil.copytree(published, folder)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
        serve(folder).commit = f"{len(str(name)):040x}"
        one_line(lambda: fetch(MONO, 8, notice=silent), MONO, "which is not there")


class _Runs:
    """A pickle of this runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran-when-read",)


def test_pickles_that_are_not_tensors_are_refused(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_publisher_folder(tmp_path / "m", safetensors=False, shape=SHAPE)
    shard = tmp_path / "m" / "pytorch_model-00002-of-00003.bin"
    torch.save({"x": torch.zeros(2)}, tmp_path / "honest.bin")
    with zipfile.ZipFile(tmp_path / "honest.bin") as honest, zipfile.ZipFile(shard, "w") as hostile:
        for item in honest.infolist():
            is_pickle = item.filename.endswith("data.pkl")
            hostile.writestr(item.filename, pickle.dumps({"x": _Runs()}, 2) if is_pickle else honest.read(item))
    hub = serve(tmp_path / "m")
    one_line(lambda: fetch(MONO, 8, notice=silent), "truncated, corrupted or not a weight file")
    assert not (tmp_path / "ran-when-read").exists() and fetched(MONO) is None and hub.gets(shard.name)
