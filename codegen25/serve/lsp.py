"""The language server: suggestions for editors that speak LSP 3.18.

`textDocument/inlineCompletion` is ghost text. A client that does not know it gets the same text as the one item of
`textDocument/completion`. A newer request for a document ends the older one, as `$/cancelRequest` does, within a step
of the model. The model is loaded while the client goes on; requests wait for it.

What is written to the client's log and to standard error has no code in it.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams, JsonRpcRequestCancelled
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, lsp_method

from codegen25 import __version__
from codegen25.complete import ANCHOR_LINES, Model
from codegen25.errors import CodegenError, say
from codegen25.serve.ask import MOST_ANCHOR, Lines
from codegen25.serve.attribution import Attribution
from codegen25.serve.choices import lines
from codegen25.serve.fields import Fields
from codegen25.serve.lsp_items import SOURCES, completion_item, inline_item, told
from codegen25.serve.lsp_suggest import Cursor, Suggest, Suggestion
from codegen25.serve.lsp_text import Place, changed, offset, with_lf
from codegen25.serve.refusal import Refusal

# Open documents beside the one of the cursor that suggestions may be drawn from, the last changed ones.
OTHERS = 3
# Characters after which a menu of completions opens by itself.
TRIGGERS = (".", "(", " ")
_REQUEST_FAILED = -32803


@dataclass(frozen=True)
class Options:
    """`max_tokens` of a suggestion. `lines` and `anchor`: see `Ask`."""

    model: str = "nano"
    max_tokens: int = 64
    lines: Lines = "auto"
    anchor: int = ANCHOR_LINES

    def with_those_of(self, client: Any) -> Options:
        """With what is in a client's `initializationOptions`. Raises `Refusal`, naming the member."""
        if client is None:
            return self
        if not isinstance(client, dict):
            raise Refusal(400, "initializationOptions: must be an object")
        fields = Fields(client, "initializationOptions.")
        return replace(
            self,
            model=fields.text("model", self.model),
            max_tokens=fields.whole("maxTokens", self.max_tokens, 1, 1024),
            lines=lines(fields, self.lines),
            anchor=fields.whole("anchorLines", self.anchor, 0, MOST_ANCHOR),
        )


class _Protocol(LanguageServerProtocol):
    """pygls' protocol with our documents, an answer to every request, and an end without `sys.exit`."""

    def __init__(self, server: Any, converter: Any) -> None:
        super().__init__(server, converter)
        self.stop = threading.Event()
        self.texts: dict[str, str] = {}  # by URI, the last changed one last
        self.encoding = "utf-16"
        self.knows_ghost_text = False

    @property
    def was_shut_down(self) -> bool:
        return self._shutdown

    def structure_message(self, data: dict[str, Any]) -> Any:
        """None for a request that is none: it has been answered."""
        if data.get("method") == types.INITIALIZE:
            self.knows_ghost_text = _knows_ghost_text(data)
        try:
            return super().structure_message(data)
        except JsonRpcException:
            if "method" not in data or not isinstance(data.get("id"), int | str):
                raise
            error = JsonRpcInvalidParams(f"{str(data['method'])[:100]}: the parameters are not those of the protocol")
            self._send_response(data["id"], error=error.to_response_error())
            return None

    def handle_message(self, message: Any) -> None:
        if message is not None:
            super().handle_message(message)

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_: Any) -> Generator[Any, Any, None]:
        self.stop.set()
        yield from ()

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        self._set(params.text_document.uri, with_lf(params.text_document.text))

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        uri = params.text_document.uri
        text = self.texts.get(uri)
        if text is None:  # never opened, so there is nothing that could be changed
            return
        for change in params.content_changes:
            if isinstance(change, types.TextDocumentContentChangePartial):
                start, end = _place(change.range.start), _place(change.range.end)
                text = changed(text, change.text, start, end, self.encoding)
            else:
                text = with_lf(change.text)
        self._set(uri, text)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        self.texts.pop(params.text_document.uri, None)

    def _set(self, uri: str, text: str) -> None:
        self.texts.pop(uri, None)
        self.texts[uri] = text


class Server(LanguageServer):
    """For one client. `load` makes the model of a name, and `attribute` opens an index beside it; both in a thread."""

    protocol: _Protocol

    def __init__(
        self,
        load: Callable[[str], Model],
        options: Options,
        attribute: Callable[[Model], Attribution] | None = None,
    ) -> None:
        super().__init__("codegen25", __version__, protocol_cls=_Protocol)
        # pygls writes whole messages to its logs.
        logging.getLogger("pygls").setLevel(logging.CRITICAL + 1)
        self._load, self._options, self._attribute = load, options, attribute
        self._suggest: Suggest | None = None
        # pygls marks what it is given, and a method cannot be marked; a partial can.
        self.feature(types.INITIALIZE)(partial(self._initialize))

    def report_server_error(self, error: Exception, source: Any) -> None:
        """What pygls could not handle. A request that failed has been answered."""
        self.tell(types.MessageType.Error, f"a message was not understood ({type(error).__name__}); it was left out")

    def tell(self, kind: types.MessageType, message: str) -> None:
        """A line for the client's log."""
        self.window_log_message(types.LogMessageParams(kind, message))

    async def close(self) -> None:
        if self._suggest:
            await self._suggest.close()

    # ---------------------------------------------------------------------------------------------------- the beginning

    def _initialize(self, params: types.InitializeParams) -> None:
        try:
            options = self._options.with_those_of(params.initialization_options)
        except Refusal as error:
            raise JsonRpcInvalidParams(str(error)) from None
        self.protocol.encoding = types.PositionEncodingKind(self.workspace.position_encoding).value
        self._suggest = Suggest(
            lambda: self._load(options.model),
            max_tokens=options.max_tokens,
            lines=options.lines,
            anchor=options.anchor,
            on_loaded=lambda seconds: self._loaded(options.model, seconds),
            on_failed=self._failed,
            on_broken=self._broken,
            attribute=self._attribute,
        )
        if self._attribute:
            self.command(SOURCES)(partial(self._tell_sources))
        if self.protocol.knows_ghost_text:
            self.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())(partial(self._inline))
        else:
            shown = types.CompletionOptions(trigger_characters=list(TRIGGERS))
            self.feature(types.TEXT_DOCUMENT_COMPLETION, shown)(partial(self._completion))

    def _loaded(self, name: str, seconds: float) -> None:
        self.tell(types.MessageType.Info, f"{name} is loaded, in {seconds:.1f} s")

    def _failed(self, error: Exception) -> None:
        """The model cannot be loaded: whoever waits for suggestions has to be told."""
        if isinstance(error, CodegenError):
            told = str(error)
        else:
            told = f"the model cannot be loaded ({type(error).__name__}); standard error has the traceback"
            self._broken(error)
        self.tell(types.MessageType.Error, told)
        self.window_show_message(types.ShowMessageParams(types.MessageType.Error, f"codegen25: {told}"))

    def _broken(self, error: BaseException) -> None:
        say("".join(traceback.format_exception(error)).rstrip())
        self.tell(types.MessageType.Error, f"a step of the model failed ({type(error).__name__})")

    # -------------------------------------------------------------------------------------------------- the suggestions

    async def _inline(self, params: types.InlineCompletionParams) -> list[types.InlineCompletionItem]:
        chosen = params.context.selected_completion_info
        cursor = self._cursor(params.text_document.uri, params.position, chosen)
        if cursor is None:
            return []
        found = await self._suggested(cursor)
        where = chosen.range if chosen else types.Range(params.position, params.position)
        return [inline_item(cursor, found, where, chosen.text if chosen else "")] if found.text else []

    async def _completion(self, params: types.CompletionParams) -> types.CompletionList:
        cursor = self._cursor(params.text_document.uri, params.position)
        items = []
        if cursor and (found := await self._suggested(cursor)).text:
            items = [completion_item(cursor, found, params.position, self.protocol.encoding)]
        return types.CompletionList(is_incomplete=True, items=items)

    def _tell_sources(self, *arguments: Any) -> None:
        """Whoever has accepted somebody's text is told whose it is."""
        for line in told(arguments[0] if arguments else None):
            self.window_show_message(types.ShowMessageParams(types.MessageType.Info, f"codegen25: {line}"))

    def _cursor(
        self, uri: str, position: types.Position, chosen: types.SelectedCompletionInfo | None = None
    ) -> Cursor | None:
        """None in a document that is not open. What is `chosen` in a menu counts as typed."""
        text = self.protocol.texts.get(uri)
        if text is None:
            return None
        ends = (chosen.range.start, chosen.range.end) if chosen else (position, position)
        start, end = (offset(text, _place(one), self.protocol.encoding) for one in ends)
        others = [(name, other) for name, other in self.protocol.texts.items() if name != uri]
        before = text[:start] + (with_lf(chosen.text) if chosen else "")
        return Cursor(uri, before, text[max(start, end) :], tuple(others[-OTHERS:]))

    async def _suggested(self, cursor: Cursor) -> Suggestion:
        assert self._suggest, "suggestions are registered when there is something to ask"
        try:
            return await self._suggest.at(cursor)
        except Refusal as error:
            if error.code == "superseded":
                raise JsonRpcRequestCancelled(str(error)) from None
            raise self._told(error) from None
        except CodegenError as error:
            raise self._told(error) from None

    def _told(self, error: CodegenError) -> JsonRpcException:
        self.tell(types.MessageType.Error, str(error))
        return JsonRpcException(str(error), _REQUEST_FAILED)


def _knows_ghost_text(initialize: Any) -> bool:
    """Whether the client names the capability; lsp-mode for Emacs gives it as null, which pygls takes for absent."""
    for member in ("params", "capabilities", "textDocument"):
        initialize = initialize.get(member)
        if not isinstance(initialize, dict):
            return False
    return "inlineCompletion" in initialize


def _place(position: types.Position) -> Place:
    return Place(position.line, position.character)
