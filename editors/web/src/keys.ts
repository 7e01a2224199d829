/** The keys of the page, as they are bound and as the help lists them. */

const MOD = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";

/** Of each line the keys that do it, and what they do. */
export const KEYS: readonly (readonly [readonly string[], string])[] = [
  [["Tab"], "Accept the suggestion, at every hole"],
  [[`${MOD} →`], "Accept its next word"],
  [["Esc"], "Dismiss it"],
  [["Alt ]", "Alt ["], "The next or the last candidate; the first time, others are drawn"],
  [[`${MOD} ↵`], "Suggest now: at the cursors, or at the marked holes"],
  [["Alt H"], "Mark a hole at the cursor, or take its mark away"],
  [["Alt click", `${MOD} Alt ↑`, `${MOD} Alt ↓`], "One more cursor: there, in the line above, below"],
  [["Alt P"], "Shade tokens by their probability"],
  [[`${MOD} O`], "Open a file"],
  [["Esc", "Tab"], "One after the other: leave the editor"],
  [["F1", "?"], "This list; ? outside of the editor"],
];

/** The key of the button that asks. */
export const ASK_KEY = `${MOD} ↵`;
