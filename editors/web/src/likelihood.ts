/** Probabilities of tokens, as shades and as figures. */

/** A class for a natural log-probability: nothing for a likely token. */
export function likelihood(logprob: number | null): string {
  const p = logprob === null ? 1 : Math.exp(logprob);
  return p >= 0.9 ? "" : p >= 0.6 ? "likely" : p >= 0.25 ? "open" : "unlikely";
}

export function percent(logprob: number | null): string {
  if (logprob === null) {
    return "–";
  }
  const value = 100 * Math.exp(logprob);
  return value < 0.1 ? "<\u00a00.1\u00a0%" : `${value.toFixed(value < 10 ? 1 : 0)}\u00a0%`;
}

/** A token with its blanks made visible. */
export function printable(text: string): string {
  return text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "→");
}
