/** Times of answers, and what of their prompts the cache had. */

import type { Timing } from "./assistant";
import { byId, element, say } from "./dom";

const REMEMBERED = 60;
const timings: Timing[] = [];

/** The value that a share `q` of the values is at most; of no values NaN. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? Number.NaN;
}

export function duration(milliseconds: number): string {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
}

/** In a sentence. An answer without tokens is the rest of a suggestion that was typed along. */
export function cacheSaid({ first, whole, usage }: Timing): string {
  const { prompt_tokens: prompt, completion_tokens: answered } = usage;
  if (prompt === 0) {
    return "The rest of the last suggestion: the model was not asked.";
  }
  const cached = usage.prompt_tokens_details.cached_tokens;
  const seconds = (whole - first) / 1000;
  const speed = answered > 1 && seconds > 0 ? `, ${Math.round((answered - 1) / seconds)} a second` : "";
  return `${cached} of ${prompt} prompt tokens from the cache. ${answered} answered${speed}.`;
}

export function answered(timing: Timing): void {
  timings.push(timing);
  timings.splice(0, timings.length - REMEMBERED);
  for (const name of ["first", "whole"] as const) {
    const values = timings.map((one) => one[name]);
    say(name, duration(timing[name]));
    say(`${name}-median`, duration(quantile(values, 0.5)));
    say(`${name}-p95`, duration(quantile(values, 0.95)));
  }
  const { prompt_tokens: prompt, prompt_tokens_details: details } = timing.usage;
  byId("cached", HTMLElement).style.width = `${prompt === 0 ? 100 : (100 * details.cached_tokens) / prompt}%`;
  say("cache-said", cacheSaid(timing));
  draw();
}

/** A bar for each of the last answers: the first token, and the rest above it. */
function draw(): void {
  const most = Math.max(...timings.map((one) => one.whole));
  const bars = timings.map((one) => {
    const bar = element("div", "", "answer");
    const first = bar.appendChild(element("div", "", "to-first"));
    bar.style.height = `${(100 * one.whole) / most}%`;
    first.style.height = `${(100 * one.first) / one.whole}%`;
    bar.title = `first token ${duration(one.first)}, whole ${duration(one.whole)}`;
    return bar;
  });
  const history = byId("history", HTMLElement);
  history.replaceChildren(...bars);
  const median = duration(quantile(timings.map((one) => one.first), 0.5));
  history.setAttribute("aria-label", `The last ${timings.length} answers; median to the first token ${median}`);
}
