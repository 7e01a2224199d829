"""Attribution of completions: an index and a policy beside a model that writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from codegen25.attribute.draft import CorpusDraft
from codegen25.attribute.index import Index, vocabulary_hash
from codegen25.attribute.policy import PolicyGuard, read_policy
from codegen25.attribute.trace import Match, Tracer
from codegen25.complete import Model
from codegen25.engine.backend import Facts
from codegen25.engine.scheduler import Scheduler
from codegen25.errors import UsageError
from codegen25.tokenizer import family


class Inline:
    """An index that is open beside a model. `guard` makes what watches an answer; None without a policy."""

    def __init__(self, folder: Path, policy: str | None, model: Facts) -> None:
        """`policy` names one, or a file. Raises CodegenError for an index of neither the model's nor our vocabulary."""
        index = Index.open(folder)
        self._shared = vocabulary_hash(model.tokenizer) == index.vocabulary
        self.tracer = Tracer(index, model.tokenizer if self._shared else family())
        self._policy = None if policy is None else read_policy(policy)
        self._model = model
        self._lock = Lock()

    @property
    def guard(self) -> Callable[[], PolicyGuard] | None:
        policy = self._policy
        return None if policy is None else lambda: PolicyGuard(self.tracer, policy)

    def drafting(self) -> Model:
        """The model with drafts from the corpus, where it has the index's vocabulary; otherwise as it is."""
        model = self._model
        assert isinstance(model, Model), "drafts are for a model that runs here"
        if not self._shared:
            return model
        drafts = [CorpusDraft(self.tracer.index, model.tokenizer)]
        scheduler = Scheduler(model.backend, model.tokenizer, drafts=drafts)
        return Model(model.backend, model.tokenizer, model.window, scheduler)

    def of(self, text: str) -> list[Match]:
        """The matches in a completion that are attributed to somebody."""
        return [match for match in self.tracer.trace(text) if not match.common] if text else []

    def spans(self, text: str) -> list[dict[str, Any]]:
        """The same for programs. May be called from several threads."""
        with self._lock:  # tables of documents are read by one at a time
            return [to_json(match) for match in self.of(text)]


def beside(folder: Path | None, policy: str | None) -> Callable[[Facts], Inline]:
    """What opens the index beside a model, for a server; what is wrong with it or with the policy is said now.

    Raises UsageError for a policy without an index, and CodegenError.
    """
    if folder is None:
        raise UsageError("--policy: an index is needed to know licences by; name it with --index")
    Index.open(folder)
    if policy is not None:
        read_policy(policy)

    def opened(model: Facts) -> Inline:
        inline = Inline(folder, policy, model)
        # Read now, and then by all threads, none of which has to wait for it.
        _ = [shard.origins for shard in inline.tracer.index.shards]
        return inline

    return opened


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
