"""The command line: one thin command per verb, imports inside each, so that `--help` is instant.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 an error, said in one line; 2 wrong usage, said
in one line; 130 interrupted. A reader that goes away (`| head`) ends the command quietly with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from codegen25 import __version__
from codegen25.attribute_cli import attribute
from codegen25.bench.cli import bench
from codegen25.complete_cli import complete, infill, score
from codegen25.data_cli import data
from codegen25.errors import CodegenError, UsageError, say
from codegen25.eval_cli import evaluate
from codegen25.lsp_cli import lsp
from codegen25.options import json_option
from codegen25.report_cli import plan, report
from codegen25.serve_cli import serve
from codegen25.terminal import write_json
from codegen25.train_cli import train

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
FOLDER = click.Path(path_type=Path)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. `argv` leaves the program's name out and defaults to `sys.argv[1:]`."""
    try:
        code = cli.main(
            None if argv is None else list(argv), "codegen25", standalone_mode=False, windows_expand_args=False
        )
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "codegen25"
        return _fail(2, f"{' '.join(error.format_message().split())} See: {where} --help")
    except UsageError as error:
        return _fail(2, str(error))
    except CodegenError as error:
        return _fail(1, str(error))
    except click.Abort:  # what click makes of an interrupt
        return 130
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return _fail(1, "this needs PyTorch; pip install 'codegen25[torch]'")
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(1, f"{error.filename}: {error.strerror}; check the path and its permissions")


def _fail(code: int, message: str) -> int:
    say(f"error: {' '.join(message.splitlines())}")
    return code


@click.group(context_settings=SETTINGS, invoke_without_command=True)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Complete and infill code with CodeGen2.5 models, offline.

    \b
    Examples:
      codegen25 complete 'def is_prime(n):'
      codegen25 infill src/app.py --at 12:5
      codegen25 score --file src/app.py
    """
    # What a terminal or a locale cannot show is escaped, never a reason to fail.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


# ------------------------------------------------------------------------------------------------------- model folders


@cli.command()
@click.argument("directory", type=FOLDER, metavar="DIR")
def tokenizer(directory: Path) -> None:
    """Write the family's 51,200-id tokenizer to DIR, as a Hugging Face folder.

    \b
    Example:
      codegen25 tokenizer codegen25-tokenizer
    """
    from codegen25.model.hf_tokenizer import write_tokenizer

    if directory.is_dir() and any(directory.iterdir()):
        raise CodegenError(f"{directory}: is not empty; name a new folder, or empty this one")
    write_tokenizer(directory)
    say(f"{directory}: written")


@cli.command()
@click.argument("model")
@click.option(
    "--to",
    type=click.Choice(["hf", "gguf"]),
    required=True,
    help="hf: a Hugging Face folder, without custom code. gguf: a file for llama.cpp, the same weights to the bit.",
)
@click.option("--out", type=FOLDER, required=True, help="A new folder (hf) or file (gguf).")
@click.option("--kind", type=click.Choice(["f16", "q8_0", "q4_0"]), help="With gguf: round, or multiply out, to this.")
def export(model: str, to: str, out: Path, kind: str | None) -> None:
    """Write MODEL in a form that other programs load.

    \b
    Examples:
      codegen25 export nano --to hf --out nano-hf
      codegen25 export nano --to gguf --out nano.gguf
      codegen25 export nano --to gguf --kind f16 --out nano-f16.gguf
    """
    from codegen25.model.folder import resolve

    if to == "gguf":
        from codegen25.model.gguf_export import export_gguf

        export_gguf(resolve(model), out, say, kind)
    else:
        from codegen25.model.export import export_hf

        if kind:
            raise UsageError("--kind is for --to gguf; leave it out")
        export_hf(resolve(model), out, say)
    say(f"{out}: written")


@cli.command()
@click.argument("model", metavar="OWNER/MODEL")
@click.option("--bits", type=click.Choice(["4", "8"]), default="8", help="Of every weight, rounded on the way.")
@click.option("--whole", is_flag=True, help="As published: for a GPU, for export and training.")
@click.option("--accept-license", is_flag=True, help="You have read its licence and accept it.")
@json_option
def fetch(model: str, bits: str, whole: bool, accept_license: bool, as_json: bool) -> None:
    """Fetch a model from the Hugging Face Hub into the cache, so that --model OWNER/MODEL runs offline.

    Every file is held to the hash that the hub lists. Stopped, it goes on where it was the next time. HF_ENDPOINT,
    HF_TOKEN and HF_HUB_OFFLINE are followed. A newer commit takes the place of an older one.

    \b
    Examples:
      codegen25 fetch Salesforce/codegen25-7b-mono_P --bits 4
      codegen25 fetch Salesforce/codegen25-7b-instruct_P --accept-license
      codegen25 fetch Salesforce/codegen25-7b-multi_P --whole
    """
    from codegen25.model.hub import fetch as fetch_quantized
    from codegen25.model.hub import fetch_whole

    if whole:
        folder = fetch_whole(model, accept=accept_license)
    else:
        folder = fetch_quantized(model, int(bits), accept=accept_license)
    if as_json:
        write_json({"model": model, "folder": str(folder), "bits": None if whole else int(bits)})


@cli.command()
@click.argument("model")
@click.option("--bits", type=click.Choice(["4", "8"]), required=True, help="Of every weight.")
@click.option("--out", type=FOLDER, required=True, help="A new folder.")
def quantize(model: str, bits: str, out: Path) -> None:
    """Write MODEL with its matrices in 4 or 8 bits.

    \b
    Example:
      codegen25 quantize Salesforce/codegen25-7b-multi --bits 8 --out codegen25-7b-int8
    """
    from codegen25.model.folder import resolve
    from codegen25.model.quantize import quantize as write_quantized

    write_quantized(resolve(model), out, bits=int(bits), notice=say)


cli.add_command(complete)
cli.add_command(infill)
cli.add_command(score)
cli.add_command(attribute)
cli.add_command(bench)
cli.add_command(data)
cli.add_command(evaluate)
cli.add_command(plan)
cli.add_command(report)
cli.add_command(lsp)
cli.add_command(serve)
cli.add_command(train)
