"""`codegen25 serve`: a model behind the interfaces that editors speak."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen25.errors import CodegenError, needs_extra, say
from codegen25.options import attribution_options, flags, loading, model_option

if TYPE_CHECKING:
    from codegen25.complete import Model
    from codegen25.engine.backend import Facts
    from codegen25.serve.attribution import Attribution
    from codegen25.serve.runner import Elsewhere
    from codegen25.serve.upstream_pool import Pool

FOLDER = click.Path(path_type=Path)

upstream_options = flags(
    click.option(
        "--upstream", multiple=True, metavar="URL",
        help="Run the model on this server instead, as vLLM's; repeatable. --model then needs no weights.",
    ),
    click.option("--upstream-key-file", type=FOLDER, help="The key that upstreams ask for."),
    click.option(
        "--upstream-timeout", type=click.FloatRange(min=0, min_open=True), default=60.0,
        help="Seconds that an upstream may say nothing.",
    ),
)  # fmt: skip


@click.command()
@model_option
@click.option("--name", show_default="--model", help="What clients call the model.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; other than local ones need keys.")
@click.option("--port", type=click.IntRange(0, 65535), default=8012, help="0 takes any that is free.")
@click.option("--api-key-file", type=FOLDER, help="Who asks needs one of these keys, a line each.")
@click.option("--no-api-key", is_flag=True, help="Let everybody who reaches --host ask.")
@click.option("--allow-origin", multiple=True, metavar="URL", help="Web pages of this origin may ask; repeatable.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Another name of this host; repeatable.")
@click.option("--queue", type=click.IntRange(min=1), default=512, help="Answers under way at once.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, help="Of any answer.")
@click.option("--max-seconds", type=click.FloatRange(min=0, min_open=True), default=300.0, help="For any answer.")
@click.option("--log-text", is_flag=True, help="Put the code of requests and answers into the log.")
@attribution_options
@upstream_options
@loading
@needs_extra("serve", "serve")
def serve(
    model: str, name: str | None, host: str, port: int, api_key_file: Path | None, no_api_key: bool,
    allow_origin: tuple[str, ...], allow_host: tuple[str, ...], queue: int, max_tokens: int, max_seconds: float,
    log_text: bool, index: Path | None, policy: str | None, upstream: tuple[str, ...], upstream_key_file: Path | None,
    upstream_timeout: float, device: str, threads: int | None, bits: int | None,
) -> None:  # fmt: skip
    """Serve MODEL to editors and programs: OpenAI's, llama.cpp's, Ollama's, Tabby's and Continue's interfaces.

    All on one port; /docs lists them, docs/serving.md tells how to set editors up. The log goes to stderr, a JSON
    object a line. SIGHUP loads the model again, SIGTERM and Ctrl-C finish the answers that have begun.

    \b
    Examples:
      codegen25 serve
      codegen25 serve --model codegen25-7b-int8 --port 9000
      codegen25 serve --host 0.0.0.0 --api-key-file keys.txt
      codegen25 serve --index starter --policy permissive
      codegen25 serve --model exported --upstream http://gpu-1:8000 --upstream http://gpu-2:8000
    """
    from codegen25.serve.app import Access
    from codegen25.serve.limits import Limits
    from codegen25.serve.run import bind, run
    from codegen25.serve.security import check_address, read_keys
    from codegen25.serve.service import Service

    if api_key_file and no_api_key:
        raise click.UsageError("--api-key-file and --no-api-key contradict each other; give one.")
    check_address(host, api_key_file is not None, no_api_key)
    keys = read_keys(api_key_file) if api_key_file else ()
    limits = Limits(queue=queue, tokens=max_tokens, answer_seconds=max_seconds)
    pool = _pool(upstream, upstream_key_file, is_local=device != "cpu" or threads is not None or bits is not None)
    load = (
        partial(_elsewhere, model, pool, upstream_key_file, upstream_timeout) if pool
        else partial(_here, model, device=device, threads=threads, bits=bits)
    )  # fmt: skip
    _check_exists(model, device, bits, is_local=not pool)
    attribute = _attribution(index, policy)
    sock = bind(host, port, limits.stall_seconds)
    hosts = (*allow_host, host)
    service = Service(name or _short(model), load, limits, log_text=log_text, attribute=attribute)
    if pool:
        from codegen25.serve.upstream_metrics import UpstreamFigures

        service.metrics.registry.register(UpstreamFigures(pool))
    where = f"http://{host if ':' not in host else f'[{host}]'}:{sock.getsockname()[1]}"
    run(service, Access(keys, allow_origin, hosts), sock, lambda: say(f"{service.name} at {where}, see {where}/docs"))


def _here(model: str, **settings: Any) -> Model:
    from codegen25.complete import load

    return load(model, **settings)


def _elsewhere(model: str, pool: Pool, key_file: Path | None, timeout: float) -> Elsewhere:
    from codegen25.serve.upstream_model import open_upstream

    return open_upstream(model, pool, None if key_file is None else _key(key_file), timeout)


def _key(path: Path) -> str:
    """Other people's, of any length."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); name a file that holds the key alone") from error
    if not key or not key.isprintable():
        raise CodegenError(f"{path}: holds no key, or more than one; name a file that holds the key alone")
    return key


def _pool(urls: tuple[str, ...], key_file: Path | None, *, is_local: bool) -> Pool | None:
    """The servers to ask; None for a model of our own."""
    from codegen25.serve.upstream import address
    from codegen25.serve.upstream_pool import Pool

    if not urls:
        if key_file:
            raise click.UsageError("--upstream-key-file is for servers that --upstream names; name one.")
        return None
    if is_local:
        raise click.UsageError("--device, --threads and --bits are for a model that runs here; leave --upstream out.")
    return Pool([address(url) for url in urls])


def _attribution(index: Path | None, policy: str | None) -> Callable[[Facts], Attribution] | None:
    """What --index and --policy ask for."""
    if index is None and policy is None:
        return None
    with needs_extra("attribute", "--index"):
        from codegen25.attribute.inline import beside
    return beside(index, policy)


def _check_exists(model: str, device: str, bits: int | None, *, is_local: bool) -> None:
    """A name that means nothing is said before anything is started; a hub id is fetched where the model runs here."""
    from codegen25.complete import find
    from codegen25.model.folder import resolve

    if is_local:
        find(model, device=device, bits=bits)
    else:
        resolve(model)


def _short(model: str) -> str:
    """A folder's or file's own name; a hub id and a built-in name as they are."""
    path = Path(model)
    if not path.exists():
        return model
    name = path.resolve().name
    if not name:
        raise CodegenError(f"{model}: has no name; give one with --name")
    return name.removesuffix(".gguf")
