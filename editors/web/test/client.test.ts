import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Client, type Frame, ServerError, type Wish } from "../src/client";
import { duration, quantile } from "../src/figures";
import { percent, printable } from "../src/likelihood";
import { DEFAULTS, read } from "../src/settings";

const WISH: Wish = { parts: ["a", "b"], maxTokens: 9, lines: "auto", n: 1, temperature: 0, logprobs: undefined };

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

async function serving(answer: Answer, use: (client: Client) => Promise<void>): Promise<void> {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("end", () => answer(request, response, body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await use(new Client("me", `http://127.0.0.1:${(server.address() as AddressInfo).port}`));
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function all(client: Client, signal = new AbortController().signal): Promise<Frame[]> {
  const found: Frame[] = [];
  for await (const frame of client.complete(WISH, signal)) {
    found.push(frame);
  }
  return found;
}

test("a request says who asks, and holds the texts around the holes", async () => {
  await serving(
    (request, response, body) => {
      assert.deepEqual(JSON.parse(body), {
        parts: ["a", "b"], max_tokens: 9, lines: "auto", n: 1, temperature: 0, stream: true, stream_options: { include_usage: true },
      });
      assert.equal(request.headers["x-client-id"], "me");
      assert.equal(request.headers["authorization"], "Bearer secret");
      response.end("data: [DONE]\n\n");
    },
    async (client) => {
      client.key = "secret";
      assert.deepEqual(await all(client), []);
    },
  );
});

test("frames may be cut anywhere, also inside of a character", async () => {
  const bytes = Buffer.from('data: {"choices":[],"x":"é🙂"}\n\ndata: {"choices":[],"x":"2"}\n\ndata: [DONE]\n\n');
  await serving(
    (_, response) => {
      void (async () => {
        for (const byte of bytes) {
          response.write(Buffer.from([byte]));
          await new Promise((resolve) => setImmediate(resolve));
        }
        response.end();
      })();
    },
    async (client) => assert.deepEqual(await all(client), [{ choices: [], x: "é🙂" }, { choices: [], x: "2" }]),
  );
});

test("what a server refuses is told in its words", async () => {
  const replies: [number, string, RegExp][] = [
    [503, '{"error":{"message":"the model is being loaded"}}', /being loaded/],
    [401, '{"error":{"message":"no valid API key"}}', /no valid API key/],
    [502, "<html>", /502/],
  ];
  for (const [status, body, said] of replies) {
    await serving(
      (_, response) => response.writeHead(status, { "Retry-After": "2" }).end(body),
      async (client) => {
        const wanted = (error: unknown): boolean =>
          error instanceof ServerError && error.status === status && said.test(error.message) && error.retryAfter === 2;
        await assert.rejects(all(client), wanted);
        await assert.rejects(client.model(), wanted);
      },
    );
  }
});

test("errors behind the beginning, answers that break off, servers that are gone", async () => {
  await serving(
    (_, response) => response.end('data: {"error":{"message":"out of memory"}}\n\n'),
    (client) => assert.rejects(all(client), /out of memory/),
  );
  await serving(
    (_, response) => response.end('data: {"choices":[]}\n\n'),
    (client) => assert.rejects(all(client), /broke off/),
  );
  await assert.rejects(all(new Client("me", "http://127.0.0.1:9")), (error: unknown) => {
    return error instanceof ServerError && error.status === 0 && /does not answer/.test(error.message);
  });
});

test("aborting closes the connection", async () => {
  const abort = new AbortController();
  let gone: (value: unknown) => void = () => undefined;
  const closed = new Promise((resolve) => (gone = resolve));
  await serving(
    (_, response) => {
      response.on("close", gone);
      response.write('data: {"choices":[]}\n\n', () => abort.abort());
    },
    async (client) => {
      await assert.rejects(all(client, abort.signal), { name: "AbortError" });
      await closed;
    },
  );
});

test("settings of another version do no harm", () => {
  assert.deepEqual(read(null), DEFAULTS);
  assert.deepEqual(read("{"), DEFAULTS);
  assert.deepEqual(read("[1]"), DEFAULTS);
  assert.deepEqual(read('{"maxTokens":"9","theme":"dark","other":1}'), { ...DEFAULTS, theme: "dark" });
});

test("figures", () => {
  assert.deepEqual([quantile([3, 1, 2], 0.5), quantile([3, 1, 2], 0.95), quantile([4], 0.5)], [2, 3, 4]);
  assert.ok(Number.isNaN(quantile([], 0.5)));
  assert.deepEqual([duration(12.4), duration(1234)], ["12 ms", "1.23 s"]);
  assert.deepEqual([percent(0), percent(Math.log(0.051)), percent(-20), percent(null)], ["100\u00a0%", "5.1\u00a0%", "<\u00a00.1\u00a0%", "–"]);
  assert.equal(printable(" a\n\t"), "·a⏎→");
});
