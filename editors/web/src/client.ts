/** Requests to the server that the page came from: OpenAI's completions, streamed, with `parts` around holes. */

import { events } from "./events";
import type { Lines } from "./settings";

export interface Wish {
  parts: readonly string[];
  maxTokens: number;
  lines: Lines;
  n: number;
  temperature: number;
  /** How many likely tokens to give beside each; undefined for no log-probabilities. */
  logprobs: number | undefined;
}

export interface Logprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  text_offset: number[];
}

/** A document that a run of an answer stands in. */
export interface Origin {
  source: string;
  version: string;
  path: string;
  first_line: number;
  last_line: number;
  license: string;
  copyright: string[];
}

/** Characters `start` to `end` of an answer, and where they stand; `count` is how often. */
export interface Span {
  start: number;
  end: number;
  kind: string;
  count: number;
  sources: Origin[];
}

export interface Choice {
  text: string;
  index: number;
  hole?: number;
  logprobs: Logprobs | null;
  finish_reason: string | null;
  /** Absent where the server has no index. */
  attribution?: Span[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

export interface Frame {
  choices: Choice[];
  usage?: Usage | null;
}

export interface ModelRow {
  id: string;
  max_model_len: number;
  meta: { n_params: number };
}

/** What the server refused, in its words. `status` is 0 when no server answered. */
export class ServerError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly retryAfter = 0,
  ) {
    super(message);
  }
}

/** `name`: who types; a newer request of theirs ends the older one. */
export class Client {
  key = "";

  constructor(
    private readonly name: string,
    private readonly base = "",
  ) {}

  /** Aborting `signal` closes the connection, which stops the model within a step. */
  async *complete(wish: Wish, signal: AbortSignal): AsyncGenerator<Frame> {
    const body = {
      parts: wish.parts,
      max_tokens: wish.maxTokens,
      lines: wish.lines,
      n: wish.n,
      temperature: wish.temperature,
      logprobs: wish.logprobs,
      stream: true,
      stream_options: { include_usage: true },
    };
    const response = await this.fetch("/v1/completions", { method: "POST", body: JSON.stringify(body), signal });
    if (response.body === null) {
      throw new ServerError(response.status, "the server's answer is empty");
    }
    for await (const value of events(response.body)) {
      const error = (value as { error?: { message?: string } }).error;
      if (error !== undefined) {
        throw new ServerError(200, error.message ?? "the server broke off");
      }
      yield value as Frame;
    }
  }

  /** The model that is served. */
  async model(): Promise<ModelRow> {
    const listed = (await (await this.fetch("/v1/models", {})).json()) as { data: ModelRow[] };
    const [row] = listed.data;
    if (row === undefined) {
      throw new ServerError(200, "the server lists no model");
    }
    return row;
  }

  private async fetch(path: string, init: RequestInit): Promise<Response> {
    const headers: Record<string, string> = { "Content-Type": "application/json", "X-Client-Id": this.name };
    if (this.key !== "") {
      headers["Authorization"] = `Bearer ${this.key}`;
    }
    let response: Response;
    try {
      response = await fetch(this.base + path, { ...init, headers });
    } catch (error) {
      if (error instanceof TypeError) {
        throw new ServerError(0, "the server does not answer; is `codegen25 serve` still running?");
      }
      throw error;
    }
    if (!response.ok) {
      throw await refusal(response);
    }
    return response;
  }
}

async function refusal(response: Response): Promise<ServerError> {
  const text = await response.text();
  let message = `the server answers with status ${response.status}`;
  try {
    message = (JSON.parse(text) as { error?: { message?: string } }).error?.message ?? message;
  } catch {
    // A proxy's page is no JSON; the status says enough.
  }
  return new ServerError(response.status, message, Number(response.headers.get("Retry-After") ?? 0));
}
