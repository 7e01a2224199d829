/** Frames as the server sends them. */

import type { Choice, Frame, Logprobs, Span } from "../src/client";

export function choice(text: string, more: Partial<Choice> = {}): Choice {
  return { text, index: 0, logprobs: null, finish_reason: null, ...more };
}

export function frame(...choices: Choice[]): Frame {
  return { choices };
}

export function logprobs(tokens: [string, number, number][]): Logprobs {
  return {
    tokens: tokens.map(([text]) => text),
    token_logprobs: tokens.map(([, , logprob]) => logprob),
    top_logprobs: tokens.map(([text, , logprob]) => ({ other: -3, [text]: logprob })),
    text_offset: tokens.map(([, at]) => at),
  };
}

export function span(start: number, end: number): Span {
  return { start, end, kind: "verbatim", count: 1, sources: [] };
}
