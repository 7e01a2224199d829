/** Puts the page together. */

import { type EditorState, Prec } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { showSources, showTokens } from "./about";
import type { Fill } from "./answer";
import { Assistant, type Timing } from "./assistant";
import { Client, ServerError } from "./client";
import { askForKey, help, setUpDialogs } from "./dialogs";
import { byId, say } from "./dom";
import { editor, setLanguage, setText } from "./editor";
import * as figures from "./figures";
import { chooseFile, dropped, setUpFiles } from "./files";
import { accept, ghostTexts, suggestion } from "./ghost";
import { holes, marks, toggleMark } from "./holes";
import { ASK_KEY } from "./keys";
import { LANGUAGES, languageOf } from "./languages";
import * as settings from "./settings";
import { choices } from "./suggestion";
import { setTraces, traces } from "./traces";

const THEMES: readonly settings.Theme[] = ["auto", "light", "dark"];

const chosen = settings.load();
const client = new Client(crypto.randomUUID());
client.key = settings.loadKey();

// --------------------------------------------------------------------------------------------------------- the editor

type Kind = "busy" | "ready" | "error";

function status(kind: Kind, text: string): void {
  byId("status", HTMLElement).dataset["kind"] = kind;
  say("status", text);
}

const assistant = new Assistant(client, () => chosen, {
  asking: (count) => status("busy", count === 1 ? "Asking…" : `Asking for ${count} holes…`),
  changed: () => requestAnimationFrame(showSuggestion),
  answered: (timing: Timing) => {
    figures.answered(timing);
    status("ready", `Answered in ${figures.duration(timing.whole)}.`);
  },
  nothing: () => status("ready", "Nothing to suggest here."),
  stopped: () => status("ready", "Ready."),
  failed,
});

const files = { opened, refused: (why: string) => status("error", why) };
const commands = Prec.highest(
  keymap.of([
    { key: "Mod-Enter", run: ask },
    { key: "Alt-]", run: () => assistant.turn(1) },
    { key: "Alt-[", run: () => assistant.turn(-1) },
    { key: "Alt-h", run: toggleMark },
    { key: "Alt-p", run: toggleProbabilities },
    { key: "Mod-o", run: chooseFile },
    { key: "F1", run: help },
  ]),
);
const nonce = document.querySelector<HTMLMetaElement>("meta[name=style-nonce]")?.content ?? "";
const view = editor(byId("editor", HTMLElement), nonce, chosen.language, [
  commands,
  assistant.extension,
  EditorView.updateListener.of(showPosition),
  EditorView.domEventHandlers({ drop: (event) => dropped(event, files) }),
]);

function ask(): boolean {
  assistant.ask();
  return true;
}

function failed(error: ServerError): void {
  status("error", error.message.split("\n")[0] ?? "");
  if (error.status === 401) {
    askForKey(client.key === "" ? "" : "The server does not know this key. ");
  }
}

// ---------------------------------------------------------------------------------------------------------- the panel

function showSuggestion(): void {
  const value = view.state.field(suggestion);
  const isShown = ghostTexts(view.state).some((text) => text !== "");
  byId("accept", HTMLButtonElement).disabled = !isShown;
  for (const id of ["previous", "next"]) {
    byId(id, HTMLButtonElement).disabled = value === null;
  }
  const accepted = view.state.field(traces).fills;
  if (value === null) {
    say("candidate", "–"); // its tokens stay
    showSources([], accepted);
    return;
  }
  const numbers = choices(value);
  say("candidate", `${numbers.indexOf(value.shown) + 1} / ${numbers.length}`);
  const fills: readonly Fill[] = value.candidates[value.shown] ?? [];
  if (fills.some((fill) => fill.text !== "")) {
    showTokens(fills);
    showSources(fills, accepted);
  }
}

function showPosition({ state }: { state: EditorState }): void {
  const line = state.doc.lineAt(state.selection.main.head);
  say("position", `Ln ${line.number}, Col ${state.selection.main.head - line.from + 1}`);
  const count = holes(state).length;
  const what = state.field(marks).length > 0 ? "marked" : "cursors";
  say("holes-said", count > 1 || what === "marked" ? `${count === 1 ? "One hole" : `${count} holes`} (${what}).` : "");
}

// ------------------------------------------------------------------------------------------------------------ settings

function keep(): void {
  settings.save(chosen);
}

function showTheme(): void {
  document.documentElement.dataset["theme"] = chosen.theme;
  say("theme", `Colours: ${chosen.theme}`);
}

function toggleProbabilities(): boolean {
  chosen.probabilities = !chosen.probabilities;
  showProbabilities();
  keep();
  if (view.state.field(suggestion) !== null) {
    assistant.ask(); // the one that is there came without them, or may have been cut differently with them
  }
  return true;
}

function showProbabilities(): void {
  byId("probabilities", HTMLElement).setAttribute("aria-pressed", String(chosen.probabilities));
  byId("tokens-section", HTMLElement).hidden = !chosen.probabilities;
  if (!chosen.probabilities) {
    view.dispatch({ effects: setTraces.of([]) });
  }
}

function toggleAutomatic(): void {
  chosen.automatic = !chosen.automatic;
  byId("automatic", HTMLElement).setAttribute("aria-pressed", String(chosen.automatic));
  keep();
}

function setUp(): void {
  const languages = byId("language", HTMLSelectElement);
  for (const [name, { label }] of Object.entries(LANGUAGES)) {
    languages.append(new Option(label, name));
  }
  languages.value = chosen.language;
  languages.addEventListener("change", () => choose(languages.value));
  const lines = byId("lines", HTMLSelectElement);
  lines.value = chosen.lines;
  lines.addEventListener("change", () => {
    chosen.lines = lines.value as settings.Lines;
    keep();
  });
  const most = byId("tokens-most", HTMLInputElement);
  most.value = String(chosen.maxTokens);
  most.addEventListener("change", () => {
    chosen.maxTokens = Math.min(1024, Math.max(1, Math.round(most.valueAsNumber) || settings.DEFAULTS.maxTokens));
    most.value = String(chosen.maxTokens);
    keep();
  });
  byId("automatic", HTMLElement).setAttribute("aria-pressed", String(chosen.automatic));
  byId("automatic", HTMLElement).addEventListener("click", toggleAutomatic);
  byId("probabilities", HTMLElement).addEventListener("click", toggleProbabilities);
  byId("theme", HTMLElement).addEventListener("click", () => {
    chosen.theme = THEMES[(THEMES.indexOf(chosen.theme) + 1) % THEMES.length] ?? "auto";
    showTheme();
    keep();
  });
  byId("open", HTMLElement).addEventListener("click", chooseFile);
  byId("help-open", HTMLElement).addEventListener("click", help);
  onClick("ask", ask);
  onClick("accept", () => accept(view));
  onClick("previous", () => assistant.turn(-1));
  onClick("next", () => assistant.turn(1));
  say("ask-key", ASK_KEY);
  showTheme();
  showProbabilities();
}

/** A button about the text leaves the focus there. */
function onClick(id: string, run: () => void): void {
  byId(id, HTMLElement).addEventListener("click", () => {
    run();
    view.focus();
  });
}

function choose(language: string): void {
  chosen.language = language;
  byId("language", HTMLSelectElement).value = language;
  setLanguage(view, language);
  keep();
}

function opened(name: string, text: string): void {
  assistant.stop();
  choose(languageOf(name));
  setText(view, text);
  document.title = `${name} – codegen25`;
  status("ready", `${name} is open; changes are not written to it.`);
}

// ---------------------------------------------------------------------------------------------------------- the server

function useKey(key: string): void {
  client.key = key;
  settings.saveKey(key);
  void connect();
}

/** Says what is served; waits for a model that is being loaded. */
async function connect(): Promise<void> {
  try {
    const { id, max_model_len: window, meta } = await client.model();
    const millions = Math.round(meta.n_params / 1e6).toLocaleString("en");
    say("model", `${id} · ${millions} M · ${window.toLocaleString("en")} tokens`);
    byId("model", HTMLElement).title = `${millions} million parameters, a window of ${window} tokens`;
    status("ready", "Ready.");
  } catch (error) {
    if (!(error instanceof ServerError)) {
      throw error;
    }
    say("model", "no model");
    failed(error);
    if (error.status === 503 || error.status === 0) {
      setTimeout(() => void connect(), 1000 * Math.max(1, error.retryAfter));
    }
  }
}

setUp();
setUpFiles(files);
setUpDialogs(() => view.focus(), useKey);
view.focus();
void connect();
