/** What is suggested at the holes of a document: pure values, which the editor's state holds. */

import { shown as worthShowing } from "../../vscode/src/parts";
import { type Candidate, type Fill, isDone, type Piece, pieces } from "./answer";

/** Where text is missing; what stands from `from` to `to`, a selection, is to be replaced. */
export interface Hole {
  from: number;
  to: number;
}

/** `typed`: how the text of each hole begins, which the document has already; the hole is behind it. `pinned`: it stays
 * when the cursor goes elsewhere. */
export interface Suggestion {
  id: number;
  holes: readonly Hole[];
  pinned: boolean;
  candidates: readonly Candidate[];
  shown: number;
  typed: readonly string[];
}

export function fillAt(suggestion: Suggestion, hole: number): Fill | undefined {
  return suggestion.candidates[suggestion.shown]?.[hole];
}

/** What is left to insert at a hole; `right` is the text behind it in its line. */
export function rest(suggestion: Suggestion, hole: number, right: string): string {
  const typed = suggestion.typed[hole] ?? "";
  const text = fillAt(suggestion, hole)?.text ?? "";
  return text.startsWith(typed) ? worthShowing(text.slice(typed.length), right) : "";
}

/** The same rest with its tokens and sources. */
export function restInPieces(suggestion: Suggestion, hole: number, right: string): Piece[] {
  const fill = fillAt(suggestion, hole);
  const text = rest(suggestion, hole, right);
  const from = suggestion.typed[hole]?.length ?? 0;
  return fill === undefined || text === "" ? [] : pieces(fill, from, from + text.length);
}

/** The suggestion after `text` was typed at its hole; null when they differ, or nothing is left of it. */
export function typedAlong(suggestion: Suggestion, text: string): Suggestion | null {
  const [hole] = suggestion.holes;
  const fill = fillAt(suggestion, 0);
  if (suggestion.holes.length !== 1 || hole === undefined || fill === undefined || hole.from !== hole.to) {
    return null;
  }
  const typed = `${suggestion.typed[0] ?? ""}${text}`;
  const isAlong = text !== "" && fill.text.startsWith(typed);
  if (!isAlong || (fill.finish !== null && fill.text.slice(typed.length).trim() === "")) {
    return null;
  }
  const at = hole.from + text.length;
  return { ...suggestion, typed: [typed], holes: [{ from: at, to: at }] };
}

/** The same text at the same place, as if no more than `typed` had been in the document when it was asked for. */
export function rebased(suggestion: Suggestion, typed: readonly string[]): Suggestion {
  if (typed.every((one, hole) => suggestion.typed[hole] === one)) {
    return suggestion;
  }
  const candidate = (suggestion.candidates[suggestion.shown] ?? []).map((fill, hole) =>
    moved(fill, suggestion.typed[hole] ?? "", typed[hole] ?? ""),
  );
  return { ...suggestion, candidates: [candidate], shown: 0, typed };
}

/** The fill with another beginning in the place of the one it has. */
function moved(fill: Fill, from: string, to: string): Fill {
  const by = [...to].length - [...from].length;
  const tokens = fill.tokens.map((token) => ({ ...token, at: token.at + by })).filter((token) => token.at >= 0);
  const spans = fill.spans?.map((span) => ({ ...span, start: Math.max(0, span.start + by), end: span.end + by }));
  const text = to + fill.text.slice(from.length);
  return { ...fill, text, tokens, spans: spans?.filter((span) => span.end > 0) ?? null };
}

/** The texts around holes without the blank in front of each, and these blanks: the model's tokens have a blank in
 * front of the next word. */
export function withoutBlanks(parts: readonly string[]): { around: string[]; typed: string[] } {
  const typed = parts.slice(0, -1).map((part) => (part.endsWith(" ") ? " " : ""));
  return { around: parts.map((part, hole) => part.slice(0, part.length - (typed[hole]?.length ?? 0))), typed };
}

/** The numbers of candidates that can be shown: those that go on from what was typed, each text once. */
export function choices(suggestion: Suggestion): number[] {
  const { candidates, shown, typed } = suggestion;
  const seen = new Set<string>();
  return candidates.flatMap((candidate, number) => {
    const text = candidate.map((fill) => fill.text.trimEnd()).join("\0");
    const fits = candidate.every((fill, hole) => fill.text.startsWith(typed[hole] ?? ""));
    const isEmpty = isDone(candidate) && candidate.every((fill, hole) => fill.text.slice(typed[hole]?.length).trim() === "");
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
