"""A small model on a hub of this machine, and caches that are empty; for the tests of what is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from model_hub import ModelHub
from publisher_folder import write_publisher_folder

from codegen25.config import ModelConfig
from codegen25.errors import CodegenError
from codegen25.model import resume

constants = pytest.importorskip("huggingface_hub.constants")

MONO = "Salesforce/codegen25-7b-mono_P"
SHAPE = ModelConfig(51200, 64, 128, 2, 2, 2, 32, 2048)
CARD = "---\nlicense: x\n---\n# CodeGen2.5\n\nA model.\n\n## License\n\nFor research only.\n\n## Citation\n\nNone.\n"
TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"
SHARDS = [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The publisher's layout, three safetensors shards."""
    folder = tmp_path_factory.mktemp("hub") / "mono"
    write_publisher_folder(folder, bins=False, shape=SHAPE)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(resume, "PAUSES", (0, 0))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


Serve = Callable[..., ModelHub]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Puts a folder on a hub of this machine, which this process then asks."""
    running = []

    def start(folder: Path, name: str = MONO, license: str = "apache-2.0") -> ModelHub:
        hub = ModelHub(folder, name, license)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + TEMPLATE)
        context = hub.running()
        context.__enter__()
        running.append(context)
        return hub

    yield start
    for context in running:
        context.__exit__(None, None, None)


def one_line(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(CodegenError) as error:
        call()
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)
