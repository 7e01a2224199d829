/** Where holes are: at places that were marked, or else at the cursors. Marks move along with the text. */

import { type EditorState, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, WidgetType } from "@codemirror/view";
import { parts as around } from "../../vscode/src/parts";
import type { Hole } from "./suggestion";

export const setMarks = StateEffect.define<readonly number[]>();

export const marks = StateField.define<readonly number[]>({
  create: () => [],
  update: (places, transaction) => {
    for (const effect of transaction.effects) {
      if (effect.is(setMarks)) {
        return effect.value;
      }
    }
    return transaction.docChanged ? unique(places.map((place) => transaction.changes.mapPos(place, 1))) : places;
  },
  provide: (field) => EditorView.decorations.from(field, drawn),
});

class Mark extends WidgetType {
  constructor(private readonly number: number) {
    super();
  }

  override eq(other: Mark): boolean {
    return other.number === this.number;
  }

  toDOM(): HTMLElement {
    const made = document.createElement("span");
    made.className = "mark";
    made.textContent = String(this.number);
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", `hole ${this.number}`);
    return made;
  }
}

function drawn(places: readonly number[]): DecorationSet {
  return Decoration.set(
    places.map((place, number) => Decoration.widget({ widget: new Mark(number + 1), side: -1 }).range(place)),
  );
}

function unique(places: readonly number[]): number[] {
  return [...new Set(places)].sort((a, b) => a - b);
}

/** Mark the place of the main cursor, or take its mark away. */
export function toggleMark(view: EditorView): boolean {
  const place = view.state.selection.main.head;
  const places = view.state.field(marks);
  const value = places.includes(place) ? places.filter((other) => other !== place) : unique([...places, place]);
  const said = `${value.length === 1 ? "one hole" : `${value.length} holes`} marked`;
  view.dispatch({ effects: [setMarks.of(value), EditorView.announce.of(said)] });
  return true;
}

export function holes(state: EditorState): Hole[] {
  const places = state.field(marks);
  if (places.length > 0) {
    return places.map((place) => ({ from: place, to: place }));
  }
  return state.selection.ranges.map(({ from, to }) => ({ from, to }));
}

/** The texts around the holes, without what stands in them. */
export function parts(state: EditorState, found: readonly Hole[]): string[] {
  let kept = "";
  let from = 0;
  const offsets: number[] = [];
  for (const hole of found) {
    kept += state.sliceDoc(from, hole.from);
    offsets.push(kept.length);
    from = hole.to;
  }
  return around(kept + state.sliceDoc(from), offsets);
}
