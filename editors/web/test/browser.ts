/**
 * The page in a real browser, with a real server: what people do, by the keyboard where they can.
 *
 * PAGE is a server without keys, KEYED one that wants the key KEY, SOURCED one that goes on behind START with what its
 * index says is MIT and of `alpha`. CHROMIUM is the browser.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, beforeEach, test } from "node:test";
import { type Browser, type BrowserContext, chromium, type Page, type Request } from "playwright-core";

const { PAGE = "", KEYED = "", KEY = "", SOURCED = "", START = "", CHROMIUM = "/usr/bin/chromium" } = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const CODE = 'def mean(values):\n"""The arithmetic mean of numbers."""\nreturn ';

let browser: Browser;
let context: BrowserContext;
let page: Page;
let asked: Request[];
let troubles: string[];

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
});

after(() => browser.close());

beforeEach(async () => {
  await context?.close();
  [context, page] = await opened(PAGE);
});

async function opened(url: string, options = {}): Promise<[BrowserContext, Page]> {
  const made = await browser.newContext({ viewport: { width: 1280, height: 760 }, colorScheme: "light", ...options });
  const shown = await made.newPage();
  [asked, troubles] = [[], []];
  shown.on("request", (request) => {
    if (request.url().endsWith("/v1/completions")) {
      asked.push(request);
    }
    if (!request.url().startsWith(url)) {
      troubles.push(`a request to ${request.url()}`);
    }
  });
  shown.on("pageerror", (error) => troubles.push(error.stack ?? error.message));
  shown.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) {
      troubles.push(message.text());
    }
  });
  await shown.goto(url);
  return [made, shown];
}

/** The texts of the holes, from the top; without those that have none. */
function ghosts(): Promise<string[]> {
  return page.$$eval(".ghost", (found) =>
    found.map((one) => [...one.children].filter((part) => part.className !== "mark").map((part) => part.textContent).join("")),
  );
}

function text(): Promise<string> {
  return page.$$eval(".cm-line", (lines) =>
    lines
      .map((line) => {
        const copy = line.cloneNode(true) as Element;
        copy.querySelectorAll(".ghost, .mark, .cm-placeholder").forEach((one) => one.remove());
        return copy.textContent;
      })
      .join("\n"),
  );
}

/** Waits until no request is under way or about to be made. */
async function settled(): Promise<void> {
  await page.waitForTimeout(150);
  await page.waitForFunction(() => document.getElementById("status")?.dataset["kind"] !== "busy");
  await page.waitForTimeout(50);
}

async function typed(code: string): Promise<string> {
  await page.keyboard.type(code, { delay: 2 });
  await page.waitForSelector(".ghost");
  await settled();
  const [ghost = ""] = await ghosts();
  assert.notEqual(ghost.trim(), "", "there is ghost text");
  return ghost;
}

async function press(...keys: string[]): Promise<void> {
  for (const key of keys) {
    await page.keyboard.press(key);
  }
}

async function fine(): Promise<void> {
  assert.deepEqual(troubles, []);
}

test("the page says what is served, and needs nothing from elsewhere", async () => {
  await settled();
  assert.match(await page.innerText("#model"), /\S+ · \d+ M · [\d,]+ tokens/);
  assert.equal(await page.innerText("#status"), "Ready.");
  assert.ok(await page.evaluate(() => document.activeElement?.classList.contains("cm-content")), "one can type at once");
  await fine();
});

test("Tab accepts what is shown, at the cursor", async () => {
  const ghost = await typed(CODE);
  const before = await text();
  await press("Tab");
  assert.equal(await text(), before + ghost);
  await press("Control+z");
  assert.equal(await text(), before);
  assert.match(await page.innerText("#first"), /^\d+ ms$|^[\d.]+ s$/);
  assert.match(await page.innerText("#cache-said"), /of \d+ prompt tokens from the cache/);
  await fine();
});

test("Escape dismisses; Ctrl+Right takes a word; typing along asks for nothing", async () => {
  const ghost = await typed(CODE);
  await press("Escape");
  assert.deepEqual(await ghosts(), []);
  await press("Control+Enter");
  await settled();
  assert.deepEqual(await ghosts(), [ghost]);
  const [count, before] = [asked.length, await text()];
  await press("Control+ArrowRight");
  const word = (await text()).slice(before.length);
  assert.ok(word !== "" && ghost.startsWith(word) && word !== ghost, word);
  await page.keyboard.type(ghost.charAt(word.length));
  await settled();
  assert.deepEqual(await ghosts(), [ghost.slice(word.length + 1)]);
  assert.equal(asked.length, count);
  await fine();
});

test("a key that disagrees, and Escape, end the request before", async () => {
  await page.fill("#tokens-most", "1024");
  await page.selectOption("#lines", "any");
  await page.click(".cm-content");
  for (const end of ["☃", "Escape"]) {
    await page.keyboard.type(`# ${"0 ".repeat(20)}`); // which goes on for as long as one lets it
    await page.waitForSelector(".ghost");
    const ended = page.waitForEvent("requestfailed");
    await (end === "Escape" ? press(end) : page.keyboard.type(end));
    assert.match((await ended).failure()?.errorText ?? "", /ABORTED/);
    assert.equal((await ghosts()).length, 0);
  }
  assert.equal(await page.innerText("#status"), "Ready.");
  await fine();
});

test("Alt+] and Alt+[ go through candidates, which are drawn when they are first wanted", async () => {
  const first = await typed("def ");
  await press("Alt+]");
  await settled();
  assert.deepEqual(JSON.parse(asked.at(-1)?.postData() ?? "").n, 3);
  const [, count] = /(\d+) \/ (\d+)/.exec(await page.innerText("#candidate"))?.slice(1).map(Number) ?? [];
  assert.ok(count !== undefined && count > 1);
  const seen = new Set([first]);
  for (let turns = 1; turns < count; turns += 1) {
    seen.add((await ghosts())[0] ?? "");
    await press("Alt+]");
  }
  assert.equal(seen.size, count, "each is another");
  assert.deepEqual(await ghosts(), [first]);
  await press("Alt+[", "Tab");
  assert.ok(!(await text()).startsWith(`def ${first}`) && (await text()).length > 4);
  await fine();
});

const TWO = 'import json\n\ndef load(path):\n    with open(path) as file:\n        return \n\ndef save(path, value):\n    with open(path, "w") as file:\n        ';

/** As if it was opened from a file, so that nothing is suggested and no line is indented. */
async function open(code: string, name = "a.py"): Promise<void> {
  await page.setInputFiles("#file", { name, mimeType: "text/plain", buffer: Buffer.from(code) });
  await page.waitForFunction((title) => document.title.startsWith(title), name);
}

test("two marked holes are filled by one request, and one undo takes that back", async () => {
  await open(TWO);
  await press("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "End", "Alt+h", "Control+End", "Alt+h");
  assert.equal(await page.innerText("#holes-said"), "2 holes (marked).");
  await press("Control+Enter");
  await settled();
  assert.equal(asked.length, 1);
  const parts = JSON.parse(asked[0]?.postData() ?? "").parts as string[];
  assert.equal(parts.length, 3);
  assert.equal(parts.join(""), TWO);
  const [first = "", second = ""] = await ghosts();
  assert.ok(first !== "" && second !== "");
  await press("Tab");
  await settled();
  assert.equal(await text(), parts[0] + first + parts[1] + second + parts[2]);
  await press("Control+z");
  assert.equal(await text(), TWO);
  await fine();
});

test("several cursors are holes, and what is selected is replaced", async () => {
  await open("a = \nb = \n");
  await press("ArrowDown", "End", "Control+Alt+ArrowUp", "Control+Enter");
  await settled();
  assert.deepEqual(JSON.parse(asked[0]?.postData() ?? "").parts, ["a = ", "\nb = ", "\n"]);
  await press("Escape");
  await open("x = WRONG\n");
  await press("End", "Control+Shift+ArrowLeft", "Control+Enter");
  await settled();
  assert.deepEqual(JSON.parse(asked[1]?.postData() ?? "").parts, ["x = ", "\n"]);
  const [ghost = ""] = await ghosts();
  assert.equal(await page.innerText(".replaced"), "WRONG");
  await press("Tab");
  assert.equal(await text(), `x = ${ghost}\n`);
  await fine();
});

test("probabilities shade tokens, also of text that was accepted", async () => {
  const plain = await typed(CODE);
  await press("Alt+p");
  await settled();
  assert.deepEqual(await ghosts(), [plain], "the same text as without");
  const shaded = ":is(.likely, .open, .unlikely)";
  assert.ok((await page.$$(`.ghost ${shaded}`)).length > 0);
  assert.match(await page.innerText("#tokens li"), /\d+\s%/);
  await press("Tab");
  assert.ok((await page.$$(`.cm-line > ${shaded}, .cm-line span > ${shaded}`)).length > 0);
  await press("Alt+p");
  assert.equal(await page.isVisible("#tokens"), false);
  assert.equal((await page.$$(`.cm-line > ${shaded}`)).length, 0);
  await fine();
});

test("without an index the page says so", async () => {
  await typed(CODE);
  assert.match(await page.innerText("#sources-said"), /no index/);
});

test("text of the corpus is underlined and has its source and licence beside it, also when it is accepted", async () => {
  await context.close();
  [context, page] = await opened(SOURCED);
  await page.fill("#tokens-most", "200");
  await page.selectOption("#lines", "any");
  await open(START);
  await press("Control+End", "Control+Enter");
  await settled();
  const said = await page.innerText("#sources");
  for (const part of ["alpha", "MIT", "alpha/m0.py:", "Copyright (c) 2020 The alpha authors", "once in the corpus"]) {
    assert.ok(said.includes(part), `${part} in ${said}`);
  }
  const [ghost = ""] = await ghosts();
  const underlined = await page.$$eval(".ghost .sourced", (found) => found.map((one) => one.textContent).join(""));
  const squeezed = (code: string): string => code.replace(/\s/g, "");
  assert.ok(underlined.length > 100 && squeezed(ghost).includes(squeezed(underlined)));
  assert.deepEqual(await violations(), []);
  await press("Tab");
  await settled();
  const kept = await page.$$eval(".cm-line .sourced", (found) => found.map((one) => one.textContent).join(""));
  assert.equal(kept, underlined);
  assert.ok((await page.innerText("#accepted")).includes("alpha/m0.py:"));
  await fine();
});

test("files are opened and dropped; what is no text is refused in a line", async () => {
  await open("package main\n", "main.go");
  assert.equal(await text(), "package main\n");
  assert.equal(await page.inputValue("#language"), "go");
  const data = await page.evaluateHandle(() => {
    const made = new DataTransfer();
    made.items.add(new File(["fn main() {}\n"], "main.rs"));
    return made;
  });
  await page.dispatchEvent(".cm-content", "drop", { dataTransfer: data });
  await page.waitForFunction(() => document.title.startsWith("main.rs"));
  assert.equal(await text(), "fn main() {}\n");
  assert.equal(await page.inputValue("#language"), "rust");
  await page.setInputFiles("#file", { name: "b.bin", mimeType: "", buffer: Buffer.from([0xff, 0]) });
  await page.waitForSelector("#status[data-kind=error]");
  assert.match(await page.innerText("#status"), /^b\.bin is no text/);
  assert.equal(await text(), "fn main() {}\n");
  await fine();
});

test("a server that does not answer is told of in a line, and asked again with the next key", async () => {
  await context.setOffline(true);
  await page.keyboard.type("import ");
  await page.waitForSelector("#status[data-kind=error]");
  assert.match(await page.innerText("#status"), /does not answer/);
  await context.setOffline(false);
  troubles = [];
  await typed(`json\n\n${CODE}`);
  await fine();
});

test("everything can be reached and told apart with the keyboard", async () => {
  await typed("def ");
  await press("Escape", "Escape");
  const reached = new Set<string>();
  for (let presses = 0; presses < 40; presses += 1) {
    await press("Tab");
    const [id, isSeen] = await page.evaluate(() => {
      const at = document.activeElement as HTMLElement;
      return [at.id, at.classList.contains("cm-content") || getComputedStyle(at).outlineStyle === "solid"] as const;
    });
    assert.ok(isSeen || id === "", `${id} shows that it has the focus`);
    reached.add(id);
    if (await page.evaluate(() => document.activeElement?.classList.contains("cm-content"))) {
      await press("Escape");
    }
  }
  const wanted = await page.$$eval("button, select, input", (all) =>
    all.filter((one) => (one as HTMLElement).offsetParent !== null && !(one as HTMLButtonElement).disabled).map((one) => one.id),
  );
  assert.deepEqual(wanted.filter((id) => !reached.has(id)), []);
  await page.focus("#theme");
  await press("?");
  assert.ok(await page.isVisible("#help"));
  await press("Escape");
  assert.ok(!(await page.isVisible("#help")));
  assert.ok(await page.evaluate(() => document.activeElement?.classList.contains("cm-content")), "back to the text");
  await press("F1");
  assert.ok(await page.isVisible("#help"));
  await fine();
});

const ground = (): Promise<string> => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

test("colours follow the system until they are chosen, and stay chosen", async () => {
  const light = await ground();
  await page.emulateMedia({ colorScheme: "dark" });
  const dark = await ground();
  assert.notEqual(dark, light);
  await page.click("#theme"); // light
  assert.equal(await ground(), light);
  await page.reload();
  assert.equal(await ground(), light);
  await page.click("#theme");
  await page.emulateMedia({ colorScheme: "light" });
  assert.equal(await ground(), dark);
  await fine();
});

/** What axe finds: contrast, names, roles. */
async function violations(): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const axe = (window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe;
    return (await axe.run()).violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
  });
}

for (const colorScheme of ["light", "dark"] as const) {
  for (const width of [1280, 360]) {
    test(`${colorScheme}, ${width} pixels wide: contrast, names and roles, and nothing beyond the edge`, async () => {
      await context.close();
      [context, page] = await opened(PAGE, { colorScheme, viewport: { width, height: 760 } });
      await press("Alt+p");
      await typed(`# one\nx = "two" + str(3)\n${CODE}`);
      assert.deepEqual(await violations(), []);
      const beyond = await page.evaluate(() => (document.scrollingElement?.scrollWidth ?? 0) - innerWidth);
      assert.ok(beyond <= 0, `${beyond} pixels beyond the edge`);
      await press("F1");
      assert.deepEqual(await violations(), []);
      await fine();
    });
  }
}

test("a server that wants a key gets it, and it is kept as long as the tab", async () => {
  await context.close();
  [context, page] = await opened(KEYED);
  await page.waitForSelector("#key-dialog[open]");
  await page.keyboard.type("a wrong key of 16 characters");
  await press("Enter");
  await page.waitForFunction(() => document.getElementById("key-said")?.textContent?.includes("does not know"));
  await page.keyboard.type(KEY);
  await press("Enter");
  await page.waitForFunction(() => document.getElementById("status")?.textContent === "Ready.");
  await page.reload();
  await page.waitForFunction(() => document.getElementById("status")?.textContent === "Ready.");
  assert.equal(await page.isVisible("#key-dialog"), false);
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage }) + document.cookie);
  assert.ok(!kept.includes(KEY));
});
