"""`codegen25 lsp`: a model behind the Language Server Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from codegen25.errors import needs_extra
from codegen25.options import attribution_options, loading, model_option

if TYPE_CHECKING:
    from codegen25.complete import Model


@click.command()
@model_option
@click.option("--max-tokens", type=click.IntRange(1, 1024), default=64, help="Of a suggestion.")
@click.option(
    "--lines", type=click.Choice(["auto", "one", "block", "any"]), default="auto",
    help="Of a suggestion. auto: the rest of a line that has text, a block on a blank one.",
)  # fmt: skip
@click.option("--tcp", type=click.IntRange(0, 65535), metavar="PORT", help="One client at 127.0.0.1, not by pipes.")
@attribution_options
@loading
@needs_extra("lsp", "lsp")
def lsp(
    model: str, max_tokens: int, lines: str, tcp: int | None, index: Path | None, policy: str | None, device: str,
    threads: int | None, bits: int | None,
) -> None:  # fmt: skip
    """Suggest code in editors, as a language server on standard input and output.

    Editors start it themselves; docs/editors.md tells how to set them up. What an editor sends as
    initializationOptions (model, maxTokens, lines) overrides the options here.

    \b
    Examples:
      codegen25 lsp
      codegen25 lsp --model codegen25-7b-int8 --lines one
      codegen25 lsp --index starter --policy permissive
    """
    from codegen25.serve.lsp import Options, Server
    from codegen25.serve.lsp_run import run

    attribute = None
    if index or policy is not None:
        with needs_extra("attribute", "--index"):
            from codegen25.attribute.inline import beside
        attribute = beside(index, policy)

    def load(name: str) -> Model:
        from codegen25.complete import load as load_model

        return load_model(name, device=device, threads=threads, bits=bits)

    run(Server(load, Options(model, max_tokens, lines), attribute), tcp)  # type: ignore[arg-type]
