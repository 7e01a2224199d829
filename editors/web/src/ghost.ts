/** Ghost text: the suggestion as a part of the editor's state, how it is drawn, and what accepts it. */

import { type EditorState, Prec, StateEffect, StateField, type Transaction } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, keymap, WidgetType } from "@codemirror/view";
import { type Candidate, classOf, type Piece } from "./answer";
import { marks, setMarks } from "./holes";
import { percent, printable } from "./likelihood";
import { fillAt, firstWord, rest, restInPieces, type Suggestion, turned, typedAlong } from "./suggestion";
import { setTraces } from "./traces";

export const setSuggestion = StateEffect.define<Suggestion | null>();
/** More text of the suggestion with this id. */
export const grow = StateEffect.define<{ id: number; candidates: readonly Candidate[] }>();

export const suggestion = StateField.define<Suggestion | null>({
  create: () => null,
  update: (value, transaction) => {
    let now = value && kept(value, transaction);
    for (const effect of transaction.effects) {
      if (effect.is(setSuggestion)) {
        now = effect.value;
      } else if (effect.is(grow) && now?.id === effect.value.id) {
        now = { ...now, candidates: effect.value.candidates };
      }
    }
    return now;
  },
  provide: (field) => EditorView.decorations.compute([field, "doc"], (state) => drawn(state)),
});

/** What is left of a suggestion after an edit, or after the cursor has moved. */
function kept(value: Suggestion, transaction: Transaction): Suggestion | null {
  if (transaction.docChanged) {
    return typedAlong(value, insertedAt(value.holes[0]?.from ?? -1, transaction));
  }
  if (transaction.selection === undefined || value.pinned) {
    return value;
  }
  const { main, ranges } = transaction.state.selection;
  const [hole] = value.holes;
  return ranges.length === 1 && main.from === hole?.from && main.to === hole.to ? value : null;
}

/** The text that a transaction puts in at a place; empty when it does anything else. */
function insertedAt(place: number, transaction: Transaction): string {
  let text = "";
  let isElsewhere = false;
  transaction.changes.iterChanges((from, to, _newFrom, _newTo, inserted) => {
    isElsewhere ||= from !== place || to !== place || text !== "";
    text = inserted.toString();
  });
  return isElsewhere ? "" : text;
}

class Ghost extends WidgetType {
  constructor(
    private readonly pieces: readonly Piece[],
    private readonly number: number | null,
  ) {
    super();
  }

  override eq(other: Ghost): boolean {
    return this.number === other.number && JSON.stringify(this.pieces) === JSON.stringify(other.pieces);
  }

  override get lineBreaks(): number {
    return this.pieces.reduce((sum, piece) => sum + piece.text.split("\n").length - 1, 0);
  }

  toDOM(): HTMLElement {
    const made = document.createElement("span");
    made.className = "ghost";
    made.setAttribute("aria-hidden", "true"); // it is announced instead
    if (this.number !== null) {
      const label = made.appendChild(document.createElement("span"));
      label.className = "mark";
      label.textContent = String(this.number);
    }
    for (const piece of this.pieces) {
      const part = made.appendChild(document.createElement("span"));
      part.textContent = piece.text;
      part.className = classOf(piece);
      part.title = titleOf(piece);
    }
    return made;
  }
}

function titleOf(piece: Piece): string {
  if (piece.token === null) {
    return "";
  }
  const others = piece.token.top.map(([text, logprob]) => `${printable(text)} ${percent(logprob)}`);
  return [`${printable(piece.token.text)} ${percent(piece.token.logprob)}`, ...others].join("\n");
}

function drawn(state: EditorState): DecorationSet {
  const value = state.field(suggestion);
  if (value === null) {
    return Decoration.none;
  }
  const isMarked = state.field(marks).length > 0;
  const decorations = value.holes.flatMap((hole, number) => {
    const pieces = restInPieces(value, number, right(state, hole.to));
    const label = value.holes.length > 1 && !isMarked ? number + 1 : null;
    const widget = Decoration.widget({ widget: new Ghost(pieces, label), side: 1 }).range(hole.to);
    const old = hole.to > hole.from ? [Decoration.mark({ class: "replaced" }).range(hole.from, hole.to)] : [];
    return pieces.length > 0 ? [...old, widget] : [];
  });
  return Decoration.set(decorations, true);
}

/** The text behind a place, as far as the end of its line. */
function right(state: EditorState, place: number): string {
  return state.sliceDoc(place, state.doc.lineAt(place).to);
}

/** What would be inserted at each hole. */
export function ghostTexts(state: EditorState): string[] {
  const value = state.field(suggestion);
  return value === null ? [] : value.holes.map((hole, number) => rest(value, number, right(state, hole.to)));
}

// ------------------------------------------------------------------------------------------------------------ commands

/** All of it, at every hole, as one step to undo. */
export function accept(view: EditorView): boolean {
  const { state } = view;
  const value = state.field(suggestion);
  const texts = ghostTexts(state);
  if (value === null || texts.every((text) => text === "")) {
    return false;
  }
  // Where nothing is suggested, what is selected stays.
  const edits = value.holes.map((hole, number) => ({ ...hole, insert: texts[number] ?? "" }));
  const changes = state.changes(edits.filter((edit) => edit.insert !== ""));
  const ends = value.holes.map((hole) => changes.mapPos(hole.to, 1));
  const accepted = value.holes.flatMap((hole, number) => {
    const pieces = restInPieces(value, number, right(state, hole.to));
    const fill = fillAt(value, number);
    return fill === undefined ? [] : [{ at: (ends[number] ?? 0) - (texts[number] ?? "").length, pieces, fill }];
  });
  view.dispatch({
    changes,
    selection: { anchor: ends.at(-1) ?? 0 },
    effects: [setMarks.of([]), setTraces.of(accepted)],
    scrollIntoView: true,
    userEvent: "input.complete",
  });
  return true;
}

export function acceptWord(view: EditorView): boolean {
  const value = view.state.field(suggestion);
  const [text] = ghostTexts(view.state);
  const [hole] = value?.holes ?? [];
  if (text === undefined || text === "" || hole === undefined || value?.pinned) {
    return false;
  }
  const word = firstWord(text);
  view.dispatch({
    changes: { ...hole, insert: word },
    selection: { anchor: hole.from + word.length },
    scrollIntoView: true,
    userEvent: "input.complete",
  });
  return true;
}

export function dismiss(view: EditorView): boolean {
  if (view.state.field(suggestion) === null) {
    return false;
  }
  view.dispatch({ effects: setSuggestion.of(null) });
  return true;
}

export function turn(view: EditorView, step: 1 | -1): void {
  const value = view.state.field(suggestion);
  if (value !== null) {
    view.dispatch({ effects: setSuggestion.of(turned(value, step)) });
  }
}

/** Keys that mean something only while there is ghost text, in front of the editor's own. */
export const ghostKeys = Prec.highest(
  keymap.of([
    { key: "Tab", run: accept },
    { key: "Mod-ArrowRight", run: acceptWord },
    { key: "Escape", run: dismiss },
  ]),
);
