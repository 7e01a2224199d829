import assert from "node:assert/strict";
import { test } from "node:test";
import { blank, grown, isDone, pieces } from "../src/answer";
import { choice, frame, logprobs, span } from "./frames";

test("frames grow the candidate and the hole that they name", () => {
  let found = [blank(2), blank(2), blank(2)];
  found = grown(found, frame(choice("a", { index: 0, hole: 0 }), choice("d", { index: 3, hole: 1 })), 1);
  found = grown(found, frame(choice("b", { index: 0, hole: 0, finish_reason: "stop" })), 1);
  assert.deepEqual(found.map((candidate) => candidate.map((fill) => fill.text)), [["", ""], ["ab", ""], ["", "d"]]);
  assert.equal(isDone(found[1] ?? []), false);
  found = grown(found, frame(choice("", { index: 1, hole: 1, finish_reason: "length" })), 1);
  assert.equal(isDone(found[1] ?? []), true);
});

test("a choice beyond those asked for is left alone", () => {
  assert.deepEqual(grown([blank(1)], frame(choice("x", { index: 5 })), 0), [blank(1)]);
});

test("sources: not known, none, and found are three things", () => {
  const spans = (more: object): unknown => grown([blank(1)], frame(choice("x", more)), 0)[0]?.[0]?.spans;
  assert.equal(spans({}), null);
  assert.deepEqual(spans({ attribution: [] }), []);
  assert.deepEqual(spans({ attribution: [span(0, 1)] }), [span(0, 1)]);
});

test("pieces are of one token each, and inside or outside of the corpus", () => {
  const said = logprobs([["re", 0, -0.1], ["turn", 2, -2], ["🙂", 6, -9], [" x", 7, 0]]);
  const [[fill] = []] = grown([blank(1)], frame(choice("return🙂 x", { logprobs: said, attribution: [span(4, 7)] })), 0);
  assert.ok(fill);
  const found = pieces(fill, 1, fill.text.length).map((piece) => [piece.text, piece.token?.text, piece.sourced]);
  assert.deepEqual(found, [["e", "re", false], ["tu", "turn", false], ["rn", "turn", true], ["🙂", "🙂", true], [" x", " x", false]]);
});

test("indentation is not underlined", () => {
  const [[fill] = []] = grown([blank(1)], frame(choice("if x:\n    y\n", { attribution: [span(0, 12)] })), 0);
  const found = fill && pieces(fill, 0, fill.text.length).map((piece) => [piece.text, piece.sourced]);
  assert.deepEqual(found, [["if x:", true], ["\n    ", false], ["y", true], ["\n", false]]);
});

test("tokens that were cut off again are in no piece", () => {
  const said = logprobs([["a", 0, 0], ["\n", 1, 0], ["more", 2, 0]]);
  const [[fill] = []] = grown([blank(1)], frame(choice("a", { logprobs: said })), 0);
  assert.deepEqual(fill && pieces(fill, 0, 1).map((piece) => piece.token?.text), ["a"]);
});

test("all pieces together are the text", () => {
  const said = logprobs([["a", 0, 0], ["bytes:\\xf0\\x9f", 1, 0], ["bytes:\\x99\\x82", 1, 0], ["b", 2, 0]]);
  const [[fill] = []] = grown([blank(1)], frame(choice("a🙂b", { logprobs: said, attribution: [span(0, 9)] })), 0);
  assert.equal(fill && pieces(fill, 0, 4).map((piece) => piece.text).join(""), "a🙂b");
});
