"""An evaluation to look at: one HTML page of scores and, task by task, the answers, how they differ, how they failed.

The page stands on its own and runs nothing, its filter included; its bytes depend on samples and verdicts alone.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from codegen25.data.charts import card, escape, page, table, tiles
from codegen25.data.document import write_text
from codegen25.evaluate.judge import Verdict
from codegen25.evaluate.samples import Sample
from codegen25.evaluate.scores import Score, comparison_rows, comparisons, percent, score_rows
from codegen25.evaluate.tasks import Task, TaskSet

# Tasks and distinct answers of one that are shown, lines of a text around the hole, and characters of any one text.
MOST_TASKS, MOST_ANSWERS, AROUND, MOST_CHARACTERS = 1_500, 4, 12, 6_000

_RULES = "/* filter */"
_STYLE = """<style>
:root { --good: #2c7a4b; --bad: #b3372f; --plus: #e3f3e8; --minus: #fbe6e3; }
@media (prefers-color-scheme: dark) { :root { --good: #6fcf97; --bad: #f08a80; --plus: #17331f; --minus: #3d1d1a; } }
.filter { margin: 0 0 1rem; } .filter label { cursor: pointer; }
.pick { position: absolute; opacity: 0; }
.picks { display: flex; flex-wrap: wrap; gap: .4rem; margin: 0 0 1rem; }
.picks label { border: 1px solid var(--line); border-radius: 99px; padding: .1rem .8rem; cursor: pointer; }
.task { border-bottom: 1px solid var(--line); padding: .35rem 0; }
.task > summary { display: flex; flex-wrap: wrap; gap: .3rem .7rem; color: var(--ink); }
.task > summary b { font-weight: 600; flex: 1 1 22rem; overflow-wrap: anywhere; }
.chip { font-size: .82rem; white-space: nowrap; color: var(--bad); } .chip.passed { color: var(--good); }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .8rem; }
.answers > div { min-width: 0; } h3 { font-size: .92rem; margin: .8rem 0 .2rem; }
pre { margin: .2rem 0 .5rem; padding: .5rem .6rem; background: var(--track); border-radius: 6px; overflow-x: auto;
  font: .8rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre span { display: block; min-height: 1.45em; } pre .plus { background: var(--plus); }
pre .minus { background: var(--minus); } pre.around { color: var(--soft); }
/* filter */</style>"""


def write_report(path: Path, title: str, tasks: TaskSet, scores: Sequence[Score]) -> None:
    """Write the page."""
    by_task = [_by_task(score) for score in scores]
    answered = [task for task in tasks.tasks if any(task.task_id in found for found in by_task)]
    statuses = list(dict.fromkeys(status for score in scores for status in score.outcomes))
    head, rows = score_rows(scores)
    about = f"{len(answered):,} tasks of {tasks.name}. Brackets are intervals of 95 % over the choice of tasks."
    parts = [
        _STYLE.replace(_RULES, _rules(statuses)),
        f'<header>\n<h1>{escape(title)}</h1>\n<p class="soft">{escape(about)}</p>\n</header>',
        f'<div class="tiles">\n{tiles(_tiles(scores))}\n</div>',
        card("Scores, in percent", _table(head, rows, range(1, len(head) - 1))),
    ]
    if pairs := comparisons(scores):
        head, rows = comparison_rows(pairs)
        note = "Over the tasks that both answered, drawn in pairs; p is McNemar's, exact and two-sided."
        parts.append(card("Compared", _table(head, rows, range(1, len(head))), note))
    names = [score.judged.column.name for score in scores]
    listed = [_task(task, [found.get(task.task_id, []) for found in by_task], names) for task in answered[:MOST_TASKS]]
    left_out = len(answered) - len(listed)
    note = "Red lines are in the canonical solution alone, green ones in the answer alone."
    note += f" {left_out:,} further tasks are not listed." if left_out else ""
    parts.append(card("Tasks", _filter(statuses, len(scores) > 1) + "\n".join(listed) + "\n</div>", note))
    write_text(path, [page(title, "\n".join(parts))])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    return table(head, [[escape(cell) for cell in row] for row in rows], numbers)


def _by_task(score: Score) -> dict[str, list[tuple[Sample, Verdict]]]:
    found: dict[str, list[tuple[Sample, Verdict]]] = {}
    for sample, verdict in zip(score.judged.column.samples, score.judged.verdicts, strict=True):
        found.setdefault(sample.task_id, []).append((sample, verdict))
    return found


def _tiles(scores: Sequence[Score]) -> dict[str, str]:
    """pass@1 of every column, by its name."""
    return {s.judged.column.name: f"{percent(s.pass_at[1].value)} %" for s in scores if 1 in s.pass_at}


# --------------------------------------------------------------------------------------------------------------- filter


def _rules(statuses: Sequence[str]) -> str:
    """A filter without a script: the radio button that is chosen hides what has not its class."""
    kinds = ["differ", *(f"is-{_class(status)}" for status in statuses)]
    chosen = "background: var(--kept); color: var(--card); border-color: var(--kept);"
    rules = [f"#pick-{kind}:checked ~ .tasks > .task:not(.{kind}) {{ display: none; }}" for kind in kinds]
    for kind in ["all", *kinds]:
        label = f".picks label[for=pick-{kind}]"
        rules.append(f"#pick-{kind}:checked ~ {label} {{ {chosen} }}")
        rules.append(f"#pick-{kind}:focus-visible ~ {label} {{ outline: 2px solid var(--ink); }}")
    return "\n".join(rules) + "\n"


def _filter(statuses: Sequence[str], several: bool) -> str:
    choices = {"all": "all", **({"differ": "where they differ"} if several else {})}
    choices |= {f"is-{_class(status)}": status for status in statuses}
    buttons = "".join(
        f'<input class="pick" type="radio" name="pick" id="pick-{name}"{" checked" if name == "all" else ""}>'
        for name in choices
    )
    labels = "".join(f'<label for="pick-{name}">{escape(said)}</label>' for name, said in choices.items())
    return f'{buttons}\n<div class="picks">{labels}</div>\n<div class="tasks">\n'


def _class(status: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in status)


# ---------------------------------------------------------------------------------------------------------------- tasks


def _task(task: Task, answers: Sequence[Sequence[tuple[Sample, Verdict]]], names: Sequence[str]) -> str:
    shares = {fmean(v.status == "passed" for _, v in found) for found in answers if found}
    classes = ["task", *sorted({f"is-{_class(v.status)}" for found in answers for _, v in found})]
    classes += ["differ"] if len(shares) > 1 else []
    chips = "".join(_chip(found, name) for found, name in zip(answers, names, strict=True) if found)
    columns = "".join(
        f"<div>\n<h3>{escape(name)}</h3>\n{_answers(task, found)}</div>\n"
        for found, name in zip(answers, names, strict=True)
        if found
    )
    before, behind = _around(task)
    return (
        f'<details class="{" ".join(classes)}">\n<summary><b>{escape(task.task_id)}</b>{chips}</summary>\n{before}'
        f'<div class="answers">\n{columns}</div>\n{behind}</details>'
    )


def _chip(found: Sequence[tuple[Sample, Verdict]], name: str) -> str:
    if len(found) == 1:
        status = found[0][1].status
        return f'<span class="chip {_class(status)}" title="{escape(name)}">{escape(status)}</span>'
    passed = sum(verdict.status == "passed" for _, verdict in found)
    kind = "passed" if passed else "failed"
    return f'<span class="chip {kind}" title="{escape(name)}">{passed}/{len(found)} passed</span>'


def _around(task: Task) -> tuple[str, ...]:
    """The lines in front of the hole and behind it."""
    before, behind = task.prompt.split("\n")[-AROUND:], task.suffix.split("\n")[:AROUND]
    return tuple(_pre("\n".join(lines).strip("\n"), "around") for lines in (before, behind))


def _answers(task: Task, found: Sequence[tuple[Sample, Verdict]]) -> str:
    """Distinct answers, the most frequent first, each with how it differs and how it failed."""
    counts = Counter((sample.text, sample.is_solution) for sample, _ in found)
    first = {(sample.text, sample.is_solution): (sample, verdict) for sample, verdict in reversed(found)}
    parts = []
    for key, count in counts.most_common(MOST_ANSWERS):
        sample, verdict = first[key]
        said = f"{verdict.status}, {verdict.seconds:.2f} s" + (f", {count} times" if count > 1 else "")
        said += ", not ended by the model" if sample.finish_reason == "length" else ""
        canonical = task.prompt + task.canonical_solution if sample.is_solution else task.canonical_solution
        shown = _diff(canonical, sample.text) if task.canonical_solution else _pre(sample.text)
        failed = "" if verdict.status == "passed" or not verdict.detail else _pre(verdict.detail)
        parts.append(f'<p class="chip {_class(verdict.status)}">{escape(said)}</p>\n{shown}{failed}')
    if left_out := len(counts) - len(parts):
        parts.append(f'<p class="soft">{left_out} further answers</p>\n')
    return "".join(parts)


def _diff(canonical: str, text: str) -> str:
    """The lines of both, marked where they are of one alone."""
    ours, theirs = _shortened(canonical).splitlines(), _shortened(text).splitlines()
    lines = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind == "equal":
            lines += [f"<span>{_line(line)}</span>" for line in ours[a:b]]
            continue
        lines += [f'<span class="minus">{_line(line)}</span>' for line in ours[a:b]]
        lines += [f'<span class="plus">{_line(line)}</span>' for line in theirs[c:d]]
    return f"<pre>{''.join(lines)}</pre>\n"


def _pre(text: str, kind: str = "") -> str:
    lines = "".join(f"<span>{_line(line)}</span>" for line in _shortened(text).splitlines())
    attribute = f' class="{kind}"' if kind else ""
    return f"<pre{attribute}>{lines}</pre>\n" if lines else ""


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}\n… {len(text):,} characters in all"


def _line(line: str) -> str:
    return "\t".join(map(escape, line.split("\t")))
