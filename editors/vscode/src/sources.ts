/** Where an answer stands in a corpus, when the server has an index (`codegen25 serve --index`). */

/** A line for each source that the choices of a reply name, once each. */
export function sources(choices: unknown): string[] {
  const spans = list(choices).flatMap((choice) => list(member(choice, "attribution")));
  const named = spans.flatMap((span) => list(member(span, "sources")));
  return [...new Set(named.map(line))];
}

function line(source: unknown): string {
  const [name, version, path, license] = ["source", "version", "path", "license"].map((one) => text(source, one));
  const first = member(source, "first_line");
  const lines = typeof first === "number" ? `:${first}` : "";
  return `${[name, version].filter(Boolean).join(" ")}, ${path}${lines} (${license || "unknown licence"})`;
}

function text(value: unknown, name: string): string {
  const found = member(value, name);
  return typeof found === "string" ? found : "";
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

export function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}
