/** What a person has chosen, kept in the browser. The API key is kept as long as the tab only. */

export type Lines = "auto" | "one" | "block" | "any";
export type Theme = "auto" | "light" | "dark";

export interface Settings {
  theme: Theme;
  language: string;
  lines: Lines;
  maxTokens: number;
  /** Suggest while one types. */
  automatic: boolean;
  probabilities: boolean;
}

export const DEFAULTS: Settings = {
  theme: "auto",
  language: "python",
  lines: "auto",
  maxTokens: 64,
  automatic: true,
  probabilities: false,
};
const NAME = "codegen25.settings";
const KEY = "codegen25.key";

/** Only members that are known and of the right type count; another version may have written them. */
export function read(text: string | null): Settings {
  let found: unknown = null;
  try {
    found = JSON.parse(text ?? "{}");
  } catch {
    return { ...DEFAULTS };
  }
  const members = typeof found === "object" && found !== null ? (found as Record<string, unknown>) : {};
  const kept = Object.entries(DEFAULTS).map(([name, value]) => {
    const other = members[name];
    return [name, typeof other === typeof value ? other : value];
  });
  return Object.fromEntries(kept) as Settings;
}

export function load(): Settings {
  return read(localStorage.getItem(NAME));
}

export function save(settings: Settings): void {
  localStorage.setItem(NAME, JSON.stringify(settings));
}

export function loadKey(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

export function saveKey(key: string): void {
  sessionStorage.setItem(KEY, key);
}
