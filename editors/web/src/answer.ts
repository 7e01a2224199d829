/** Answers as they grow from the frames of a stream. Offsets in frames count Unicode characters, ours UTF-16 units. */

import type { Choice, Frame, Span } from "./client";
import { likelihood } from "./likelihood";

/** A token of an answer; `at` is its first character, `logprob` natural. */
export interface Token {
  text: string;
  at: number;
  logprob: number | null;
  top: readonly (readonly [string, number])[];
}

/** The text for one hole. `spans`: null where nothing is known of where it comes from. */
export interface Fill {
  text: string;
  tokens: readonly Token[];
  finish: string | null;
  spans: readonly Span[] | null;
}

/** A fill for each hole. */
export type Candidate = readonly Fill[];

export function blank(holes: number): Candidate {
  return Array.from({ length: holes }, () => ({ text: "", tokens: [], finish: null, spans: null }));
}

/** The candidates with what a frame brings; its first choice is candidate `first`. */
export function grown(candidates: readonly Candidate[], frame: Frame, first: number): Candidate[] {
  const made = [...candidates];
  for (const choice of frame.choices) {
    const holes = made[0]?.length ?? 1;
    const number = first + Math.floor(choice.index / holes);
    const candidate = made[number];
    if (candidate !== undefined) {
      made[number] = candidate.map((fill, hole) => (hole === (choice.hole ?? 0) ? extended(fill, choice) : fill));
    }
  }
  return made;
}

function extended(fill: Fill, choice: Choice): Fill {
  return {
    text: fill.text + choice.text,
    tokens: [...fill.tokens, ...tokens(choice)],
    finish: choice.finish_reason ?? fill.finish,
    spans: choice.attribution ?? fill.spans,
  };
}

function tokens(choice: Choice): Token[] {
  const said = choice.logprobs;
  return (said?.tokens ?? []).map((text, number) => ({
    text,
    at: said?.text_offset[number] ?? 0,
    logprob: said?.token_logprobs[number] ?? null,
    top: Object.entries(said?.top_logprobs[number] ?? {}).sort((a, b) => b[1] - a[1]),
  }));
}

export function isDone(candidate: Candidate): boolean {
  return candidate.every((fill) => fill.finish !== null);
}

/** The offset in UTF-16 units of each character of a text, and of its end. */
export function units(text: string): number[] {
  const found: number[] = [];
  let at = 0;
  for (const character of text) {
    found.push(at);
    at += character.length;
  }
  return [...found, at];
}

/** A piece of a fill's text that is of one token, and inside or outside of what stands in the corpus. */
export interface Piece {
  text: string;
  token: Token | null;
  sourced: boolean;
}

/** How a piece is drawn: by how likely its token is, and whether it stands in the corpus. */
export function classOf(piece: Piece): string {
  const level = piece.token === null ? "" : likelihood(piece.token.logprob);
  return [level, piece.sourced ? "sourced" : ""].filter((name) => name !== "").join(" ");
}

/** The text from unit `from` to unit `to` in pieces. What a token has beyond the text, which was cut, is left out. */
export function pieces(fill: Fill, from: number, to: number): Piece[] {
  const places = units(fill.text);
  const unit = (character: number): number => places[Math.min(character, places.length - 1)] as number;
  const starts = fill.tokens.map((token) => unit(token.at));
  const spans = (fill.spans ?? []).map((span) => [unit(span.start), unit(span.end)] as const);
  // Indentation is nobody's, and a line under it would be noise.
  const indents = [...fill.text.matchAll(/\n[ \t]*/g)].flatMap((found) => [found.index, found.index + found[0].length]);
  const inside = [...starts, ...spans.flat(), ...indents].filter((place) => place > from && place < to);
  const borders = [...new Set([from, ...inside, to])].sort((a, b) => a - b);
  return borders.slice(1).map((end, number) => {
    const start = borders[number] as number;
    const token = fill.tokens[starts.findLastIndex((place) => place <= start)] ?? null;
    const text = fill.text.slice(start, end);
    const sourced = text.trim() !== "" && spans.some(([first, last]) => first <= start && end <= last);
    return { text, token, sourced };
  });
}
