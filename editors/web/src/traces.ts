/** Shades and underlines of accepted text, which stay until the next suggestion is accepted. */

import { type Range, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView } from "@codemirror/view";
import { classOf, type Fill, type Piece } from "./answer";

/** Text that was put in: its pieces, where they begin, and all that is known of it. */
export interface Accepted {
  at: number;
  pieces: readonly Piece[];
  fill: Fill;
}

interface Traces {
  drawn: DecorationSet;
  fills: readonly Fill[];
}

export const setTraces = StateEffect.define<readonly Accepted[]>();

export const traces = StateField.define<Traces>({
  create: () => ({ drawn: Decoration.none, fills: [] }),
  update: (value, transaction) => {
    for (const effect of transaction.effects) {
      if (effect.is(setTraces)) {
        const drawn = Decoration.set(effect.value.flatMap(drawnOf), true);
        return { drawn, fills: effect.value.map((one) => one.fill) };
      }
    }
    return transaction.docChanged ? { ...value, drawn: value.drawn.map(transaction.changes) } : value;
  },
  provide: (field) => EditorView.decorations.from(field, (value) => value.drawn),
});

function drawnOf({ at, pieces }: Accepted): Range<Decoration>[] {
  let place = at;
  return pieces.flatMap((piece) => {
    const from = place;
    place += piece.text.length;
    const name = classOf(piece);
    return name === "" ? [] : [Decoration.mark({ class: name }).range(from, place)];
  });
}
