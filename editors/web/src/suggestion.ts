/** What is suggested at the holes of a document: pure values, which the editor's state holds. */

import { shown as worthShowing } from "../../vscode/src/parts";
import { type Candidate, type Fill, isDone, type Piece, pieces } from "./answer";

/** Where text is missing; what stands from `from` to `to`, a selection, is to be replaced. */
export interface Hole {
  from: number;
  to: number;
}

/** `typed`: units of the only hole's text that were typed along. `pinned`: it stays when the cursor goes elsewhere. */
export interface Suggestion {
  id: number;
  holes: readonly Hole[];
  pinned: boolean;
  candidates: readonly Candidate[];
  shown: number;
  typed: number;
}

export function fillAt(suggestion: Suggestion, hole: number): Fill | undefined {
  return suggestion.candidates[suggestion.shown]?.[hole];
}

/** What is left to insert at a hole; `right` is the text behind it in its line. */
export function rest(suggestion: Suggestion, hole: number, right: string): string {
  return left(suggestion.candidates[suggestion.shown]?.[hole]?.text ?? "", suggestion.typed, right);
}

function left(text: string, typed: number, right: string): string {
  return worthShowing(text.slice(typed), right);
}

/** The same rest with its tokens and sources. */
export function restInPieces(suggestion: Suggestion, hole: number, right: string): Piece[] {
  const fill = fillAt(suggestion, hole);
  const text = rest(suggestion, hole, right);
  return fill === undefined || text === "" ? [] : pieces(fill, suggestion.typed, suggestion.typed + text.length);
}

/** The suggestion after `text` was typed at its hole; null when they differ, or nothing is left of it. */
export function typedAlong(suggestion: Suggestion, text: string): Suggestion | null {
  const [hole] = suggestion.holes;
  const fill = fillAt(suggestion, 0);
  if (suggestion.holes.length !== 1 || hole === undefined || fill === undefined || hole.from !== hole.to) {
    return null;
  }
  const typed = suggestion.typed + text.length;
  const isAlong = text !== "" && fill.text.startsWith(text, suggestion.typed);
  if (!isAlong || (fill.finish !== null && fill.text.slice(typed).trim() === "")) {
    return null;
  }
  const at = hole.from + text.length;
  return { ...suggestion, typed, holes: [{ from: at, to: at }] };
}

/** The numbers of candidates that can be shown: those that go on from what was typed, each text once. */
export function choices(suggestion: Suggestion): number[] {
  const { candidates, shown, typed } = suggestion;
  const start = candidates[shown]?.[0]?.text.slice(0, typed) ?? "";
  const seen = new Set<string>();
  return candidates.flatMap((candidate, number) => {
    const text = candidate.map((fill) => fill.text.trimEnd()).join("\0");
    const fits = candidate.every((fill) => fill.text.startsWith(start)) || typed === 0;
    const isEmpty = isDone(candidate) && candidate.every((fill) => fill.text.slice(typed).trim() === "");
    if (number !== shown && (!fits || isEmpty || (seen.has(text) && isDone(candidate)))) {
      return [];
    }
    seen.add(text);
    return [number];
  });
}

/** The next or the last candidate, round and round. */
export function turned(suggestion: Suggestion, step: 1 | -1): Suggestion {
  const numbers = choices(suggestion);
  const at = numbers.indexOf(suggestion.shown) + step;
  return { ...suggestion, shown: numbers.at(at % numbers.length) ?? suggestion.shown };
}

/** The first word of a text with the blanks in front of it; of signs, all that stand together. */
export function firstWord(text: string): string {
  return /^\s*(?:[\p{L}\p{M}\p{N}_]+|[^\p{L}\p{M}\p{N}_\s]+)/u.exec(text)?.[0] ?? text;
}
