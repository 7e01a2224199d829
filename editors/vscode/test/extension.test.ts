import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import type * as vscode from "vscode";
import { activate } from "../src/extension";
import { CancellationToken, Document, Editor, InlineCompletionItem, Position, Range, state, window } from "./fake";
import { serving } from "./serving";

const TEXT = "def add(a, b):\r\n    return \r\n\r\ndef sub(a, b):\r\n    return x\r\n";
const secrets = new Map<string, string>();

interface Provider {
  provideInlineCompletionItems(
    document: Document,
    position: Position,
    context: unknown,
    token: CancellationToken,
  ): Promise<InlineCompletionItem[]>;
}

beforeEach(() => {
  state.settings = new Map<string, unknown>(
    Object.entries({ enabled: true, url: "", model: "", maxTokens: 9, lines: "auto", anchorLines: 8, debounce: 0, command: "serve it" }),
  );
  state.shown = [];
  state.typed = [];
  secrets.clear();
  window.activeTextEditor = new Editor(new Document(TEXT));
  const store = {
    get: async (name: string) => secrets.get(name),
    store: async (name: string, value: string) => void secrets.set(name, value),
  };
  activate({ subscriptions: [], secrets: store } as unknown as vscode.ExtensionContext);
});

afterEach(() => assert.doesNotMatch(state.bar.text ?? "", /spin/, "nothing is asked any more"));

function editor(): Editor {
  return window.activeTextEditor as Editor;
}

function ghost(position: Position, context: object = {}, token = new CancellationToken()): Promise<InlineCompletionItem[]> {
  const provider = state.provider as Provider;
  return provider.provideInlineCompletionItems(editor().document, position, { triggerKind: 1, ...context }, token);
}

async function run(command: string): Promise<void> {
  await state.commands.get(`codegen25.${command}`)?.();
}

/** Answers every hole with its number; what it was asked goes to `seen`. */
async function answering(seen: { parts: string[] }[], use: () => Promise<void>, before = (): void => undefined): Promise<void> {
  await serving(
    (_, response, body) => {
      const asked = JSON.parse(body) as { parts: string[] };
      seen.push(asked);
      before();
      const choices = asked.parts.slice(1).map((_, hole) => ({ text: `<${hole}>`, hole }));
      response.end(JSON.stringify({ choices }));
    },
    async (url) => {
      state.settings.set("url", url);
      await use();
    },
  );
}

test("ghost text is asked for at the cursor, of what stands there now", async () => {
  const seen: { parts: string[] }[] = [];
  await answering(seen, async () => {
    const [item] = await ghost(new Position(1, 11));
    assert.equal(item?.insertText, "<0>");
    assert.deepEqual(item?.range, new Range(new Position(1, 11), new Position(1, 11)));
  });
  assert.deepEqual(seen[0]?.parts, ["def add(a, b):\n    return ", "\n\ndef sub(a, b):\n    return x\n"]);
  assert.match(state.bar.text ?? "", /sparkle/);
});

test("the status bar names the sources of what was suggested", async () => {
  const source = { source: "lib", version: "1", path: "a.py", first_line: 3, license: "MIT" };
  await serving(
    (_, response) => response.end(JSON.stringify({ choices: [{ text: "x", attribution: [{ sources: [source] }] }] })),
    async (url) => {
      state.settings.set("url", url);
      await ghost(new Position(1, 11));
      assert.match(state.bar.text ?? "", /law/);
      assert.match(state.bar.tooltip ?? "", /lib 1, a.py:3 \(MIT\)/);
    },
  );
});

test("what is chosen in a menu is part of the item", async () => {
  const seen: { parts: string[] }[] = [];
  const range = new Range(new Position(4, 11), new Position(4, 12));
  await answering(seen, async () => {
    const [item] = await ghost(new Position(4, 12), { selectedCompletionInfo: { range, text: "xyz" } });
    assert.equal(item?.insertText, "xyz<0>");
    assert.equal(item?.range, range);
  });
  assert.ok(seen[0]?.parts[0]?.endsWith("    return xyz"));
});

test("nothing is asked with several cursors, when it is off, and when nobody waits", async () => {
  const seen: { parts: string[] }[] = [];
  await answering(seen, async () => {
    const gone = new CancellationToken();
    gone.cancel();
    assert.deepEqual(await ghost(new Position(1, 11), {}, gone), []);
    await run("toggle");
    assert.match(state.bar.text ?? "", /circle-slash/);
    assert.deepEqual(await ghost(new Position(1, 11)), []);
    await run("toggle");
    editor().selections = [new Range(new Position(0, 0), new Position(0, 0)), new Range(new Position(1, 0), new Position(1, 0))];
    assert.deepEqual(await ghost(new Position(1, 11)), []);
  });
  assert.equal(seen.length, 0);
});

test("a request nobody wants any more is ended", async () => {
  const token = new CancellationToken();
  await serving(
    () => token.cancel(),
    async (url) => {
      state.settings.set("url", url);
      assert.deepEqual(await ghost(new Position(1, 11), {}, token), []);
    },
  );
  assert.match(state.bar.text ?? "", /sparkle/);
});

test("every cursor is a hole, and what is selected is replaced", async () => {
  const seen: { parts: string[] }[] = [];
  editor().selections = [
    new Range(new Position(4, 11), new Position(4, 12)),
    new Range(new Position(1, 11), new Position(1, 11)),
  ];
  await answering(seen, () => run("fillHoles"));
  assert.deepEqual(seen[0]?.parts, ["def add(a, b):\n    return ", "\n\ndef sub(a, b):\n    return ", "\n"]);
  assert.equal(editor().document.text, "def add(a, b):\r\n    return <0>\r\n\r\ndef sub(a, b):\r\n    return <1>\r\n");
});

test("a file that has changed meanwhile is left alone", async () => {
  editor().selections = [new Range(new Position(1, 11), new Position(1, 11))];
  await answering([], () => run("fillHoles"), () => void (editor().document.version += 1));
  assert.equal(editor().document.text, TEXT);
  assert.match(state.shown[0] ?? "", /changed meanwhile/);
});

test("a server that is not there is told by the bar, aloud where somebody waits, and can be started", async () => {
  await answering([], async () => undefined); // its port is closed now
  editor().selections = [new Range(new Position(1, 11), new Position(1, 11))];
  assert.deepEqual(await ghost(new Position(1, 11)), []);
  assert.equal(state.shown.length, 0);
  await run("fillHoles");
  assert.match(state.shown[0] ?? "", /does not answer/);
  assert.equal(state.bar.command, "codegen25.startServer");
  await run("startServer");
  assert.deepEqual(state.typed, ["serve it"]);
});

test("the key is kept as a secret and sent", async () => {
  await run("setKey");
  assert.deepEqual([...secrets.values()], ["key"]);
  let sent: string | undefined;
  await serving(
    (request, response) => {
      sent = request.headers["authorization"];
      response.writeHead(401).end("{}");
    },
    async (url) => {
      state.settings.set("url", url);
      assert.deepEqual(await ghost(new Position(1, 11)), []);
    },
  );
  assert.equal(sent, "Bearer key");
  assert.match(state.bar.tooltip ?? "", /401/);
});
