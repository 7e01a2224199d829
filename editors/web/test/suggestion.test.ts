import assert from "node:assert/strict";
import { test } from "node:test";
import { EditorSelection, EditorState, type TransactionSpec } from "@codemirror/state";
import { blank, type Candidate, type Fill } from "../src/answer";
import { ghostTexts, grow, setSuggestion, suggestion } from "../src/ghost";
import { holes, marks, parts, setMarks } from "../src/holes";
import { choices, firstWord, rebased, type Suggestion, turned, withoutBlanks } from "../src/suggestion";
import { span } from "./frames";

const DONE: Fill = { text: "", tokens: [], finish: "stop", spans: null };

function candidate(...texts: string[]): Candidate {
  return texts.map((text) => ({ ...DONE, text }));
}

function at(place: number, ...candidates: Candidate[]): Suggestion {
  return { id: 1, holes: [{ from: place, to: place }], pinned: false, candidates, shown: 0, typed: [""] };
}

function state(doc: string, cursor: number): EditorState {
  const extensions = [marks, suggestion, EditorState.allowMultipleSelections.of(true)];
  return EditorState.create({ doc, selection: { anchor: cursor }, extensions });
}

/** The ghost text after these changes, or null when the suggestion is gone. */
function after(doc: string, cursor: number, value: Suggestion, ...specs: TransactionSpec[]): string | null {
  let now = state(doc, cursor).update({ effects: setSuggestion.of(value) }).state;
  for (const spec of specs) {
    now = now.update(spec).state;
  }
  return now.field(suggestion) === null ? null : (ghostTexts(now)[0] ?? "");
}

const typing = (from: number, insert: string): TransactionSpec => ({
  changes: { from, insert },
  selection: { anchor: from + insert.length },
});

test("typing along keeps the rest of the ghost text", () => {
  const value = at(3, candidate("return x"));
  assert.equal(after("   ", 3, value), "return x");
  assert.equal(after("   ", 3, value, typing(3, "r"), typing(4, "et")), "urn x");
});

test("anything else that is typed, deleted or chosen ends it", () => {
  const value = at(3, candidate("return x"));
  assert.equal(after("   ", 3, value, typing(3, "q")), null);
  assert.equal(after("   ", 3, value, typing(0, "r")), null);
  assert.equal(after("   ", 3, value, { changes: { from: 2, to: 3 } }), null);
  assert.equal(after("   ", 3, value, { selection: { anchor: 1 } }), null);
  assert.equal(after("   ", 3, value, { selection: { anchor: 2, head: 3 } }), null);
  assert.equal(after("   ", 3, value, typing(3, "return x")), null);
  const twice = { changes: [{ from: 0, insert: "r" }, { from: 3, insert: "r" }] };
  assert.equal(after("   ", 3, value, twice), null);
});

test("moving to where the cursor is already changes nothing", () => {
  assert.equal(after("   ", 3, at(3, candidate("x")), { selection: { anchor: 3 } }), "x");
});

test("text that comes belongs to the suggestion it was asked for", () => {
  const value = at(0, blank(1));
  const more = (id: number): TransactionSpec => ({ effects: grow.of({ id, candidates: [candidate("new")] }) });
  assert.equal(after("", 0, value, more(1)), "new");
  assert.equal(after("", 0, value, more(2)), "");
});

test("blanks at the end of a line are not shown", () => {
  assert.equal(after("", 0, at(0, candidate("x  \n"))), "x");
  assert.equal(after(")", 0, at(0, candidate("x "))), "x ");
  assert.equal(after("", 0, at(0, candidate(" \n"))), "");
});

test("candidates are turned round; empty and equal ones, and those of another beginning, are left out", () => {
  const value = at(0, candidate("ab"), candidate("ab "), candidate(" "), candidate("ac"), candidate("x"));
  assert.deepEqual(choices(value), [0, 3, 4]);
  assert.deepEqual(choices({ ...value, typed: ["a"] }), [0, 3]);
  const steps = [1, 1, 1, -1] as const;
  let now = value;
  assert.deepEqual(steps.map((step) => (now = turned(now, step)).shown), [3, 4, 0, 4]);
});

test("a suggestion that is typed along can begin again where the cursor is", () => {
  const tokens = [{ text: "🙂", at: 0, logprob: 0, top: [] }, { text: "ab", at: 1, logprob: 0, top: [] }];
  const fill = { ...DONE, text: "🙂ab", tokens, spans: [span(0, 1), span(0, 2)] };
  const now = rebased({ ...at(2, [fill]), typed: ["🙂"] }, [""]);
  assert.deepEqual([now.typed, now.candidates[0]?.[0]?.text], [[""], "ab"]);
  assert.deepEqual(now.candidates[0]?.[0]?.tokens.map((token) => [token.text, token.at]), [["ab", 0]]);
  assert.deepEqual(now.candidates[0]?.[0]?.spans, [span(0, 1)]);
});

test("what the text begins with may be in the document already, and must be", () => {
  assert.equal(after("x ", 2, { ...at(2, candidate(" = 1")), typed: [" "] }), "= 1");
  assert.equal(after("x ", 2, { ...at(2, candidate("(1)")), typed: [" "] }), "");
  const now = rebased({ ...at(2, candidate("= 1")), typed: ["= "] }, [" "]);
  assert.deepEqual([now.typed, now.candidates[0]?.[0]?.text], [[" "], " 1"]);
  const { around, typed } = withoutBlanks(["x = ", "\n    ", "y", " "]);
  assert.deepEqual([around, typed], [["x =", "\n   ", "y", " "], [" ", " ", ""]]);
});

test("words", () => {
  const found = ["return x", "  x = 1", "(a, b)", "== 2", "größe+1", "\n    x", "   "].map(firstWord);
  assert.deepEqual(found, ["return", "  x", "(", "==", "größe", "\n    x", "   "]);
});

test("holes are at the cursors, in place of what is selected, unless places are marked", () => {
  const selection = EditorSelection.create([EditorSelection.cursor(1), EditorSelection.range(3, 5)]);
  let now = state("abcdefg", 0).update({ selection }).state;
  assert.deepEqual(holes(now), [{ from: 1, to: 1 }, { from: 3, to: 5 }]);
  assert.deepEqual(parts(now, holes(now)), ["a", "bc", "fg"]);
  now = now.update({ effects: setMarks.of([2, 6]) }).state;
  now = now.update({ changes: { from: 0, insert: "__" } }).state;
  assert.deepEqual(holes(now).map((hole) => hole.from), [4, 8]);
  now = now.update({ changes: { from: 3, to: 9 } }).state;
  assert.deepEqual(holes(now), [{ from: 3, to: 3 }]);
});
