"""A server of a small model on a port of its own, in a thread, and a plain client for it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from native_model import twins

from codegen25.complete import Model
from codegen25.config import ModelConfig
from codegen25.engine.backend import Facts
from codegen25.engine.cpu import CpuBackend
from codegen25.serve.app import Access, make_app
from codegen25.serve.attribution import Attribution
from codegen25.serve.limits import Limits
from codegen25.serve.run import Patient, bind
from codegen25.serve.runner import Elsewhere
from codegen25.serve.service import Service
from codegen25.tokenizer import family

WINDOW = 640
CONFIG = ModelConfig(51200, 64, 64, 2, 4, 2, 16, WINDOW, tied=True)
ENGINE, _ = twins(CONFIG, seed=3)


def small_model() -> Model:
    """Knows nothing, but answers the same each time; its engine is shared, its cache is not."""
    return Model(CpuBackend(ENGINE, CONFIG), family())


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The objects of server-sent events; the last must be [DONE], or there is none of these."""
        lines = [line.removeprefix(b"data: ") for line in self.body.split(b"\n\n") if line]
        return [json.loads(line) for line in lines if line != b"[DONE]"]


class Running:
    """A server that is up. `service` belongs to its thread, and `requests` are those that it has not done with."""

    def __init__(self, service: Service, port: int, requests: Collection[object] = ()) -> None:
        self.service, self.port, self.requests = service, port, requests
        self.url = f"http://127.0.0.1:{port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, body: Any = None, *, raw: bytes | None = None, **headers: Any) -> Reply:
        """POST with a body, GET without."""
        connection = self.connect()
        try:
            data = json.dumps(body).encode() if raw is None and body is not None else raw
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if data is None else "POST", path, data, named)
            response = connection.getresponse()
            reply = Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()
        for _ in range(20):  # its line of the log comes behind it, and belongs to the test that asked
            if not self.requests:
                break
            time.sleep(0.001)
        return reply

    def idle(self) -> bool:
        """Whether no answer is under way any more, and every request in the log; waits a while for it."""
        for _ in range(400):
            served = self.service.served.answering
            is_active = isinstance(served.model, Model) and served.model.scheduler.active
            if not served.runner.busy and not is_active and not self.requests:
                return True
            time.sleep(0.025)
        return False

    def metrics(self) -> str:
        """Its figures, with every request in them."""
        assert self.idle()
        return self.ask("/metrics").body.decode()


@contextmanager
def serving(
    *,
    load: Callable[[], Model | Elsewhere] = small_model,
    limits: Limits | None = None,
    access: Access | None = None,
    log_text: bool = False,
    attribute: Callable[[Facts], Attribution] | None = None,
) -> Iterator[Running]:
    limits = limits or Limits(tokens=256)
    sock = bind("127.0.0.1", 0, limits.stall_seconds)
    made: list[Service] = []

    def app() -> Any:
        made.append(Service("small", load, limits, log_text=log_text, attribute=attribute))
        return make_app(made[0], access)

    config = uvicorn.Config(
        app, factory=True, http=Patient, lifespan="on", log_config=None, access_log=False,
        limit_concurrency=limits.connections, timeout_graceful_shutdown=10,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        while not (server.started and made and made[0].ready):
            assert thread.is_alive()
            time.sleep(0.01)
        yield Running(made[0], sock.getsockname()[1], server.server_state.tasks)
    finally:
        server.should_exit = True
        thread.join()
        sock.close()
