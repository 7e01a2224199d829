"""Tabby's own agent, as it is published, in front of the server: what its plugins for Vim and others run.

It needs Node.js and `npm install tabby-agent@1.5.0`, with its program on the PATH.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from attributed import function
from lsp_client import URI, Server, at
from serving import serving

from codegen25.bench.overfitted import Overfitted
from codegen25.complete import Model
from codegen25.serve.app import Access
from codegen25.tokenizer import family

AGENT = shutil.which("tabby-agent")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(AGENT is None, reason="no tabby-agent")]

TEXT = function("some text", 20)
START = TEXT[: TEXT.index("\n") + 1]
KEY = "a-key-of-somebody-1"
CONFIG = """\
[server]
endpoint = "{url}"
token = "{key}"
[logs]
level = "silent"
[anonymousUsageTracking]
disable = true
"""


def test_the_agent_hears_the_models_text(tmp_path: Path) -> None:
    assert AGENT
    T = family()
    model = Model(Overfitted([[T.eot, *T.encode(TEXT), T.eot]], T.n_vocab), T)
    config = tmp_path / ".tabby-client" / "agent" / "config.toml"
    config.parent.mkdir(parents=True)
    with serving(load=lambda: model, access=Access((KEY.encode(),))) as server:
        config.write_text(CONFIG.format(url=server.url, key=KEY))
        home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        with Server([AGENT, "--lsp", "--stdio"], tmp_path / "stderr", home) as agent:
            capabilities: dict[str, Any] = {"textDocument": {"completion": {}}}
            agent.result("initialize", {"processId": None, "rootUri": None, "capabilities": capabilities})
            agent.notify("initialized", {})
            document = {"uri": URI, "languageId": "python", "version": 1, "text": START}
            agent.notify("textDocument/didOpen", {"textDocument": document})
            asked = {"textDocument": {"uri": URI}, "position": at(1, 0), "context": {"triggerKind": 1}}
            found = agent.result("textDocument/completion", asked)
        assert server.idle()
    (item,) = found["items"]
    assert item["textEdit"]["newText"] in TEXT.removeprefix(START) and len(item["textEdit"]["newText"]) > 100
