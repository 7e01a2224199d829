import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { endpoint, fill, read, ServerError, type Settings } from "../src/server";
import { status } from "../src/status";
import { serving } from "./serving";

const SETTINGS: Settings = { url: "", key: "", model: "", maxTokens: 9, lines: "auto", anchorLines: 3 };

function trouble(kind: string, word: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof ServerError && error.trouble === kind && word.test(error.message);
}

const open = (): AbortSignal => new AbortController().signal;

test("a request has the texts around the holes, and who asks", async () => {
  const seen: { headers: IncomingMessage["headers"]; url: string; body: unknown }[] = [];
  const choices = [{ text: "B", hole: 1 }, { text: "A", hole: 0 }];
  await serving(
    (request, response, body) => {
      seen.push({ headers: request.headers, url: request.url ?? "", body: JSON.parse(body) });
      response.end(JSON.stringify({ choices }));
    },
    async (url) => {
      const settings = { ...SETTINGS, url, key: "secret", model: "nano" };
      assert.deepEqual((await fill(settings, ["a🙂", "b", "c"], "me", open())).texts, ["A", "B"]);
      await fill({ ...SETTINGS, url: `${url}/` }, ["a", "b", "c"], "me", open());
    },
  );
  assert.equal(seen[0]?.url, "/v1/completions");
  assert.deepEqual(seen[0]?.body, { parts: ["a🙂", "b", "c"], max_tokens: 9, lines: "auto", anchor: 3, model: "nano" });
  assert.equal(seen[0]?.headers["authorization"], "Bearer secret");
  assert.equal(seen[0]?.headers["x-client-id"], "me");
  assert.equal(seen[1]?.url, "/v1/completions");
  assert.deepEqual(seen[1]?.body, { parts: ["a", "b", "c"], max_tokens: 9, lines: "auto", anchor: 3 });
  assert.equal(seen[1]?.headers["authorization"], undefined);
});

test("aborting ends the connection, which ends the model's work", async () => {
  const abort = new AbortController();
  let gone: (value: unknown) => void = () => undefined;
  const closed = new Promise((resolve) => (gone = resolve));
  await serving(
    (_, response) => {
      response.on("close", gone);
      abort.abort();
    },
    async (url) => {
      await assert.rejects(fill({ ...SETTINGS, url }, ["a", "b"], "me", abort.signal), { name: "AbortError" });
      await closed;
    },
  );
});

test("what a server says is told in its words", async () => {
  const replies: [number, string, string, RegExp][] = [
    [503, '{"error": {"message": "the model is being loaded"}}', "loading", /being loaded/],
    [409, '{"error": {"message": "a newer request"}}', "superseded", /newer/],
    [401, '{"error": {"message": "no valid API key"}}', "refused", /no valid API key/],
    [500, "{}", "refused", /500/],
    [500, "null", "refused", /500/],
    [200, "<html>", "refused", /not JSON/],
    [200, '{"choices": []}', "refused", /all of 1 holes/],
    [200, '{"choices": [{"text": 7}]}', "refused", /all of 1 holes/],
    [200, '{"choices": 7}', "refused", /all of 1 holes/],
  ];
  for (const [code, text, kind, word] of replies) {
    await serving(
      (_, response) => response.writeHead(code).end(text),
      (url) => assert.rejects(fill({ ...SETTINGS, url }, ["a", "b"], "me", open()), trouble(kind, word)),
    );
  }
});

test("a server that is not there, and one that sends us elsewhere", async () => {
  let nowhere = "";
  await serving(() => undefined, async (url) => void (nowhere = url));
  await assert.rejects(fill({ ...SETTINGS, url: nowhere }, ["a", "b"], "me", open()), trouble("unreachable", /codegen25 serve/));
  await serving(
    (_, response) => response.writeHead(307, { location: "http://127.0.0.1:1/" }).end(),
    (url) => assert.rejects(fill({ ...SETTINGS, url }, ["a", "b"], "me", open()), trouble("unreachable", /./)),
  );
});

test("a key goes to this machine, or by https", () => {
  const at = (url: string, key = "secret"): string => endpoint({ ...SETTINGS, url, key }).href;
  assert.equal(at("http://localhost:8012"), "http://localhost:8012/v1/completions");
  assert.equal(at("https://models.example/base"), "https://models.example/base/v1/completions");
  assert.equal(at("http://models.example", ""), "http://models.example/v1/completions");
  for (const url of ["http://models.example", "file:///etc", "not a url"]) {
    assert.throws(() => at(url), trouble("refused", /codegen25.url/));
  }
});

test("choices without a number are in order", () => {
  assert.deepEqual(read(200, '{"choices": [{"text": "a"}, {"text": "b"}]}', 2), { texts: ["a", "b"], sources: [] });
});

test("sources are a line each, and once", () => {
  const one = { source: "lib", version: "1.2", path: "lib/a.py", first_line: 7, license: "MIT" };
  const spans = [{ start: 0, end: 9, sources: [one, { ...one, license: "" }] }];
  const choices = [{ text: "a", attribution: spans }, { text: "b", attribution: spans }];
  const wanted = ["lib 1.2, lib/a.py:7 (MIT)", "lib 1.2, lib/a.py:7 (unknown licence)"];
  assert.deepEqual(read(200, JSON.stringify({ choices }), 2).sources, wanted);
  for (const wrong of [3, [3], [{ sources: 3 }], [{ sources: [null] }], { a: 1 }]) {
    assert.equal(read(200, JSON.stringify({ choices: [{ text: "a", attribution: wrong }] }), 1).texts[0], "a");
  }
});

test("the status bar says what is the matter, and what a click does", () => {
  assert.match(status({ kind: "ready" }).text, /sparkle/);
  assert.match(status({ kind: "off" }).tooltip, /off/);
  assert.match(status({ kind: "ready", sources: ["lib 1, a.py:7 (MIT)"] }).tooltip, /stands in\nlib 1, a.py:7/);
  assert.match(status({ kind: "asking" }).text, /spin/);
  const away = status({ kind: "trouble", error: new ServerError("unreachable", "nobody there") });
  assert.equal(away.command, "codegen25.startServer");
  assert.match(away.tooltip, /nobody there; click/);
  assert.equal(status({ kind: "trouble", error: new ServerError("loading", "soon") }).tooltip, "soon");
});
