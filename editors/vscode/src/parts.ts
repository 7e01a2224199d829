/** Texts around holes. A JavaScript string counts UTF-16 units, as VS Code's offsets do. */

/** What a request has of a file at most, in units; the server fits it to the model's window. */
export const MOST = 200_000;

/** The n + 1 texts around n offsets, which may come in any order, with LF; the far ends of a large file are left out. */
export function parts(text: string, offsets: readonly number[], most: number = MOST): string[] {
  const places = sorted(text, offsets);
  if (places.length === 0) {
    return [];
  }
  const first = places[0] as number;
  const last = places[places.length - 1] as number;
  const room = Math.max(0, most - (last - first));
  const start = onCharacter(text, Math.max(0, first - Math.ceil(room * 0.75)));
  const end = onCharacter(text, Math.min(text.length, last + Math.ceil(room * 0.25)));
  const borders = [start, ...places, end];
  return borders.slice(1).map((border, number) => withLf(text.slice(borders[number], border)));
}

/** The offsets in order, each once, inside the text and between characters. */
export function sorted(text: string, offsets: readonly number[]): number[] {
  const inside = offsets.map((offset) => onCharacter(text, Math.min(Math.max(0, offset), text.length)));
  return [...new Set(inside)].sort((a, b) => a - b);
}

/** The offset, or the one before where it would cut a surrogate pair or CR and LF apart. */
function onCharacter(text: string, offset: number): number {
  const cuts = isHigh(text.charCodeAt(offset - 1)) && isLow(text.charCodeAt(offset));
  const cutsLine = text[offset - 1] === "\r" && text[offset] === "\n";
  return cuts || cutsLine ? offset - 1 : offset;
}

function isHigh(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}

function isLow(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000;
}

function withLf(text: string): string {
  return text.replace(/\r\n?/g, "\n");
}

/** An answer for every one of the offsets, which ascend: of equal ones, which are one hole, the first has it. */
export function spread(offsets: readonly number[], answers: readonly string[]): string[] {
  let hole = -1;
  return offsets.map((offset, number) => (offset === offsets[number - 1] ? "" : (answers[++hole] ?? "")));
}

/** What of an answer is worth showing in front of `suffix`; empty for none. */
export function shown(answer: string, suffix: string): string {
  const right = suffix.split("\n", 1)[0] ?? "";
  const text = right.trim() === "" ? answer.trimEnd() : answer;
  return text.trim() === "" ? "" : text;
}
