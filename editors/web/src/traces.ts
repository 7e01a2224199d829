/** Shades and underlines of accepted text, which stay until the next suggestion is accepted. */

import { type Range, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView } from "@codemirror/view";
import { classOf, type Piece } from "./answer";

/** Text that was put in: its pieces, and where they begin. */
export interface Accepted {
  at: number;
  pieces: readonly Piece[];
}

export const setTraces = StateEffect.define<readonly Accepted[]>();

export const traces = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update: (found, transaction) => {
    for (const effect of transaction.effects) {
      if (effect.is(setTraces)) {
        return Decoration.set(effect.value.flatMap(drawn), true);
      }
    }
    return found.map(transaction.changes);
  },
  provide: (field) => EditorView.decorations.from(field),
});

function drawn({ at, pieces }: Accepted): Range<Decoration>[] {
  let place = at;
  return pieces.flatMap((piece) => {
    const from = place;
    place += piece.text.length;
    const name = classOf(piece);
    return name === "" ? [] : [Decoration.mark({ class: name }).range(from, place)];
  });
}
