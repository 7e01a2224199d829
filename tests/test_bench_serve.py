"""The clients of the server's benchmark, against a small server, and what counts as a repeat."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from publisher_folder import write_publisher_folder
from serving import serving, small_model

from codegen25.bench import serve
from codegen25.bench.serve_client import at_once, complete, get, post
from codegen25.bench.signals import ENDED
from codegen25.engine.decode import Request, decode
from codegen25.tokenizer import family


def test_clients_hear_what_a_server_says() -> None:
    ids = family().encode("def f(x):\n")
    model = small_model()
    request = Request(ids, serve._text(model), frozenset({family().eot}), max_tokens=12)
    alone = "".join(piece.text for piece in decode(model.backend, family(), [request]))
    with serving() as server:
        assert get(server.url, "/health")[0] == 200
        heard = at_once([lambda: complete(server.url, ids, 12) for _ in range(8)])
        assert {one.text for one in heard} == {alone} and {one.status for one in heard} == {200}
        assert all(one.tokens == 12 and not one.dropped for one in heard)
        dropped = complete(server.url, ids, 200, drop_after=1)
        assert dropped.dropped and server.idle()
        assert post(server.url, b'{"prompt": [1, "x"').status == 400
    assert get(server.url, "/health")[0] == 0


@dataclass(frozen=True)
class Own:
    """A server in this process."""

    address: str

    @property
    def memory(self) -> int:
        return 1_000_000


def test_streams_that_survive_others_are_as_alone() -> None:
    prompts = [family().encode(f"def f_{n}(x):\n    return ") for n in range(20)]
    with serving() as server:
        equal, memory = serve.endurance(Own(server.url), prompts, 0.0, seed=1)
        assert server.idle()
    assert equal.holds and equal.more["errors"] == 0 and equal.more["rounds"] == 2
    assert equal.peer == [28] and equal.more["dropped"] > 0  # a fifth dropped and a tenth malformed of twice 20
    assert memory.ratio == 1


@pytest.mark.parametrize(
    ("prefix", "answer", "suffix", "repeats"),
    [
        ("x = 1\n", "y = 2\nz = 3\n", "\nz = 3\n", True),
        ("    ", "return x", "\n    return x\n", True),
        ("x = 1\n", "y = 2\n", "\nz = 3\n", False),
        ("print(", "a)", ")\n", True),
        ("print(f(", "a)", ")\n", False),
        ("x = ", "a + b", " + b\n", True),
        ("x = ", "", "\ny\n", False),
    ],
)
def test_repeats(prefix: str, answer: str, suffix: str, repeats: bool) -> None:
    assert serve.is_repeated(prefix, answer, suffix) == repeats


def test_cursors_stand_in_files_that_the_model_has_not_seen() -> None:
    found = list(serve._cursors(30, seed=1))
    assert found == list(serve._cursors(30, seed=1)) != list(serve._cursors(30, seed=2))
    assert all(prefix and suffix for prefix, suffix in found)
    inside = [suffix for prefix, suffix in found[2::3] if prefix.endswith("(")]
    assert inside and all(suffix.startswith(")") for suffix in inside)


PROGRAM = """
import sys, time
from pathlib import Path
from codegen25.bench.figures import Options
from codegen25.bench.serve_client import OurServer
from codegen25.bench.signals import unwound_by_sigterm

model, cache = map(Path, sys.argv[1:])
with unwound_by_sigterm(), OurServer(Options(cache, 1, 1, (), print), model) as server:
    print(server.address, flush=True)
    time.sleep(600)
"""


def test_sigterm_ends_the_servers_too(tmp_path: Path) -> None:
    write_publisher_folder(tmp_path / "model", bins=False)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "model"), str(tmp_path / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout
        address = benchmark.stdout.readline().strip()
        assert get(address, "/health")[0] == 200
        benchmark.send_signal(signal.SIGTERM)
        assert benchmark.wait(120) == ENDED
    assert get(address, "/health")[0] == 0
