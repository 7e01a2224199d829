"""Attribution of completions: an index and a policy beside a model that writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from codegen25.attribute.draft import CorpusDraft
from codegen25.attribute.index import Index, vocabulary_hash
from codegen25.attribute.policy import PolicyGuard, read_policy
from codegen25.attribute.trace import Match, Tracer
from codegen25.complete import Model
from codegen25.engine.scheduler import Scheduler
from codegen25.tokenizer import family


class Inline:
    """An index that is open beside a model. `guard` makes what watches an answer; None without a policy."""

    def __init__(self, folder: Path, policy: str | None, model: Model) -> None:
        """`policy` names one, or a file. Raises CodegenError for an index of neither the model's nor our vocabulary."""
        index = Index.open(folder)
        self._shared = vocabulary_hash(model.tokenizer) == index.vocabulary
        self.tracer = Tracer(index, model.tokenizer if self._shared else family())
        self._policy = None if policy is None else read_policy(policy)
        self._model = model

    @property
    def guard(self) -> Callable[[], PolicyGuard] | None:
        policy = self._policy
        return None if policy is None else lambda: PolicyGuard(self.tracer, policy)

    def drafting(self) -> Model:
        """The model with drafts from the corpus, where it has the index's vocabulary; otherwise as it is."""
        model = self._model
        if not self._shared:
            return model
        drafts = [CorpusDraft(self.tracer.index, model.tokenizer)]
        scheduler = Scheduler(model.backend, model.tokenizer, drafts=drafts)
        return Model(model.backend, model.tokenizer, model.window, scheduler)

    def of(self, text: str) -> list[Match]:
        """The matches in a completion that are attributed to somebody."""
        return [match for match in self.tracer.trace(text) if not match.common] if text else []


def to_json(match: Match) -> dict[str, Any]:
    """A match as a completion tells of it: characters, how often, and its sources with all that is known of them."""
    found = match.to_json()
    return {name: found[name] for name in ("start", "end", "kind", "count")} | {"sources": list(found["origins"])}


def told(name: str, match: Match) -> str:
    """A line for a person."""
    origin = match.origins[0]
    where = f"{origin.source} {origin.version}".rstrip() + f", {origin.path}:{origin.first_line}-{origin.last_line}"
    others = f", and {len(match.sources) - 1} more sources" if len(match.sources) > 1 else ""
    return f"{name}: characters {match.start} to {match.end} stand in {where} ({origin.license}){others}"
