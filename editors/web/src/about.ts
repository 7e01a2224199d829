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

/** Of what is suggested, and of what was accepted last. */
export function showSources(suggested: readonly Fill[], accepted: readonly Fill[]): void {
  const found = sources(suggested);
  byId("sources", HTMLElement).replaceChildren(...found);
  if (suggested.length > 0) {
    say("sources-said", sourcesSaid(suggested, found.length));
  }
  const kept = sources(accepted);
  byId("accepted", HTMLElement).replaceChildren(...kept);
  byId("accepted-said", HTMLElement).hidden = kept.length === 0;
}

function sources(fills: readonly Fill[]): HTMLElement[] {
  return fills.flatMap((fill) => (fill.spans ?? []).map((span) => source(fill.text, span)));
}

function sourcesSaid(fills: readonly Fill[], found: number): string {
  if (fills.some((fill) => fill.finish === null)) {
    return "…";
  }
  const ended = fills.some((fill) => fill.finish === "content_filter") ? " The server's policy ended it." : "";
  if (fills.every((fill) => fill.spans === null)) {
    return `The server has no index loaded, so nothing is known of where this stands.${ended}`;
  }
  return `${found === 0 ? "Nothing of the suggestion stands in the index." : "What is underlined stands in:"}${ended}`;
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
