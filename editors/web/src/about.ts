/** What the panel says of the suggestion that is shown: its tokens, and where it stands in the corpus. */

import { type Fill, type Token, units } from "./answer";
import type { Origin, Span } from "./client";
import { byId, element, say } from "./dom";
import { likelihood, percent, printable } from "./likelihood";

const MOST_TOKENS = 400;

export function showTokens(fills: readonly Fill[]): void {
  const tokens = fills.flatMap((fill) => fill.tokens).slice(0, MOST_TOKENS);
  byId("tokens", HTMLElement).replaceChildren(...tokens.map(row));
}

function row(token: Token): HTMLElement {
  const made = element("li");
  made.append(
    element("code", printable(token.text), likelihood(token.logprob)),
    element("span", percent(token.logprob), "figure"),
  );
  const others = token.top.filter(([text]) => text !== token.text).slice(0, 2);
  const said = others.map(([text, logprob]) => `${printable(text)} ${percent(logprob)}`).join("   ");
  made.append(element("span", said, "others"));
  return made;
}

export function showSources(fills: readonly Fill[]): void {
  const known = fills.filter((fill) => fill.spans !== null);
  const found = known.flatMap((fill) => (fill.spans ?? []).map((span) => source(fill.text, span)));
  byId("sources", HTMLElement).replaceChildren(...found);
  say("sources-said", sourcesSaid(fills, found.length));
}

function sourcesSaid(fills: readonly Fill[], found: number): string {
  const refused = fills.some((fill) => fill.finish === "content_filter") ? " The policy ended it." : "";
  if (fills.some((fill) => fill.finish === null)) {
    return "…";
  }
  if (fills.every((fill) => fill.spans === null)) {
    return "The server has no index loaded, so nothing is known of where this stands.";
  }
  return (found === 0 ? "Nothing of it stands in the index." : "Underlined text stands in:") + refused;
}

/** A run of the answer, and the documents that it stands in. */
function source(text: string, span: Span): HTMLElement {
  const places = units(text);
  const made = element("li");
  made.append(element("code", excerpt(text.slice(places[span.start], places[span.end])), "sourced"));
  made.append(element("p", `${span.kind}, ${span.count === 1 ? "once" : `${span.count} times`} in the corpus`, "quiet"));
  made.append(...span.sources.map(origin));
  return made;
}

function origin(one: Origin): HTMLElement {
  const made = element("div", "", "origin");
  const name = element("p");
  name.append(element("strong", one.source), ` ${one.version} `, element("span", one.license, "licence"));
  made.append(name);
  const lines = one.first_line === one.last_line ? `${one.first_line}` : `${one.first_line}–${one.last_line}`;
  made.append(element("p", `${one.path}:${lines}`, "path"));
  made.append(...one.copyright.slice(0, 2).map((line) => element("p", line, "quiet")));
  return made;
}

function excerpt(text: string): string {
  const [line = ""] = text.trim().split("\n");
  return line.length > 80 || text.trim().includes("\n") ? `${line.slice(0, 80)}…` : line;
}
