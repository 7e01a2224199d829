/** Requests to `codegen25 serve`: OpenAI's completions, with `parts`, which are the texts around holes. */

import { member, sources } from "./sources";

export type Lines = "auto" | "one" | "block" | "any";

export interface Settings {
  url: string;
  key: string;
  model: string;
  maxTokens: number;
  lines: Lines;
  anchorLines: number;
}

/** The texts for the holes, in their order, and a line for each source that they are known to stand in. */
export interface Answers {
  texts: string[];
  sources: string[];
}

/** superseded: a newer request of ours has come; nobody need be told. */
export type Trouble = "unreachable" | "loading" | "refused" | "superseded";

export class ServerError extends Error {
  constructor(
    readonly trouble: Trouble,
    message: string,
  ) {
    super(message);
  }
}

/** `client`: who types; its new request ends its older one. */
export function body(settings: Settings, parts: readonly string[]): string {
  const { maxTokens, lines, anchorLines } = settings;
  const fields: Record<string, unknown> = { parts, max_tokens: maxTokens, lines, anchor: anchorLines };
  if (settings.model !== "") {
    fields["model"] = settings.model;
  }
  return JSON.stringify(fields);
}

export function endpoint(settings: Settings): URL {
  let url: URL;
  try {
    url = new URL("v1/completions", settings.url.endsWith("/") ? settings.url : `${settings.url}/`);
  } catch {
    throw new ServerError("refused", `codegen25.url is ${JSON.stringify(settings.url)}; it must be a whole URL`);
  }
  const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
  if (!["http:", "https:"].includes(url.protocol) || (url.protocol === "http:" && settings.key !== "" && !isLocal)) {
    throw new ServerError("refused", `codegen25.url is ${settings.url}; a key is sent by https, or to this machine`);
  }
  return url;
}

/** Answers for all holes. Aborting ends the connection, and with it the model's work. */
export async function fill(
  settings: Settings,
  parts: readonly string[],
  client: string,
  signal: AbortSignal,
): Promise<Answers> {
  const headers: Record<string, string> = { "content-type": "application/json", "x-client-id": client };
  if (settings.key !== "") {
    headers["authorization"] = `Bearer ${settings.key}`;
  }
  const url = endpoint(settings);
  let status: number;
  let text: string;
  try {
    const reply = await fetch(url, { method: "POST", headers, body: body(settings, parts), signal, redirect: "error" });
    status = reply.status;
    text = await reply.text();
  } catch (error) {
    if (signal.aborted) {
      throw error;
    }
    throw new ServerError("unreachable", `${url.origin} does not answer; run \`codegen25 serve\``);
  }
  return read(status, text, parts.length - 1);
}

/** What a reply says for each of `holes`. */
export function read(status: number, text: string, holes: number): Answers {
  let reply: unknown;
  try {
    reply = JSON.parse(text);
  } catch {
    throw new ServerError("refused", `the server's reply (${status}) is not JSON; check codegen25.url`);
  }
  if (status !== 200) {
    const told = member(member(reply, "error"), "message");
    const trouble = status === 503 ? "loading" : status === 409 ? "superseded" : "refused";
    throw new ServerError(trouble, typeof told === "string" ? told : `the server says ${status}`);
  }
  const choices = member(reply, "choices");
  const texts: (string | undefined)[] = new Array<undefined>(holes).fill(undefined);
  for (const [number, choice] of (Array.isArray(choices) ? choices : []).entries()) {
    const hole = member(choice, "hole") ?? number;
    const answer = member(choice, "text");
    if (typeof hole === "number" && hole in texts && typeof answer === "string") {
      texts[hole] = answer;
    }
  }
  const whole = texts.map((answer) => {
    if (answer === undefined) {
      throw new ServerError("refused", `the server has not answered all of ${holes} holes; is it codegen25's?`);
    }
    return answer;
  });
  return { texts: whole, sources: sources(choices) };
}
