import assert from "node:assert/strict";
import { test } from "node:test";
import { parts, shown, sorted, spread } from "../src/parts";

test("one hole has a text on either side", () => {
  assert.deepEqual(parts("abcdef", [3]), ["abc", "def"]);
  assert.deepEqual(parts("", [0]), ["", ""]);
  assert.deepEqual(parts("abc", []), []);
});

test("cursors may come in any order, twice, and outside", () => {
  assert.deepEqual(parts("abcdef", [5, 1, 5, -3, 99]), ["", "a", "bcde", "f", ""]);
  assert.deepEqual(sorted("ab", [9, 0, 2]), [0, 2]);
});

test("offsets are UTF-16 units, and none cuts a character", () => {
  const text = "a🙂b";
  assert.deepEqual(parts(text, [3]), ["a🙂", "b"]);
  assert.deepEqual(parts(text, [2]), ["a", "🙂b"]);
});

test("lines end in LF, also where a cursor stands between CR and LF", () => {
  assert.deepEqual(parts("a\r\nb\rc\n", [3]), ["a\n", "b\nc\n"]);
  assert.deepEqual(parts("a\r\nb", [2]), ["a", "\nb"]);
});

test("texts joined are the file, whatever the cursors", () => {
  let seed = 7;
  const random = (below: number): number => (seed = (seed * 48271) % 2147483647) % below;
  for (let round = 0; round < 500; round++) {
    const text = Array.from({ length: random(12) }, () => ["a", "🙂", "é", "\n", " "][random(5)]).join("");
    const offsets = Array.from({ length: 1 + random(4) }, () => random(text.length + 3) - 1);
    const found = parts(text, offsets);
    assert.equal(found.join(""), text);
    assert.equal(found.length, sorted(text, offsets).length + 1);
    for (const part of found) {
      assert.equal(part, Buffer.from(part, "utf8").toString("utf8"), "no half of a character");
    }
  }
});

test("of a large file what is near the cursors is sent", () => {
  const text = "🙂".repeat(1000);
  const found = parts(text, [1000, 1010], 110);
  assert.equal(found[1], "🙂".repeat(5));
  assert.ok(found.join("").length <= 112);
  assert.ok(text.includes(found.join("")));
  assert.ok((found[0] as string).length > (found[2] as string).length);
});

test("an answer belongs to the first of equal places", () => {
  assert.deepEqual(spread([1, 4, 4, 9], ["a", "b", "c"]), ["a", "b", "", "c"]);
  assert.deepEqual(spread([1, 2], ["a"]), ["a", ""]);
});

test("blanks are nothing to show, and stay where text follows", () => {
  assert.equal(shown("x, ", "y)\n"), "x, ");
  assert.equal(shown("x \n\n", "\nnext"), "x");
  assert.equal(shown("  \n", ""), "");
});
