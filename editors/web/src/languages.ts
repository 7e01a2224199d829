/** Languages to colour and indent by, and the endings of their files' names. */

import { StreamLanguage, type StreamParser } from "@codemirror/language";
import { c, cpp, java } from "@codemirror/legacy-modes/mode/clike";
import { go } from "@codemirror/legacy-modes/mode/go";
import { javascript, typescript } from "@codemirror/legacy-modes/mode/javascript";
import { python } from "@codemirror/legacy-modes/mode/python";
import { rust } from "@codemirror/legacy-modes/mode/rust";
import type { Extension } from "@codemirror/state";

interface Language {
  label: string;
  endings: readonly string[];
  parser: StreamParser<unknown> | null;
  /** What one step of indentation is. */
  indent: string;
}

export const LANGUAGES: Readonly<Record<string, Language>> = {
  c: { label: "C", endings: ["c", "h"], parser: c, indent: "    " },
  cpp: { label: "C++", endings: ["cc", "cpp", "cxx", "hh", "hpp"], parser: cpp, indent: "    " },
  go: { label: "Go", endings: ["go"], parser: go, indent: "\t" },
  java: { label: "Java", endings: ["java"], parser: java, indent: "    " },
  javascript: { label: "JavaScript", endings: ["cjs", "js", "jsx", "mjs"], parser: javascript, indent: "  " },
  python: { label: "Python", endings: ["py", "pyi"], parser: python, indent: "    " },
  rust: { label: "Rust", endings: ["rs"], parser: rust, indent: "    " },
  typescript: { label: "TypeScript", endings: ["ts", "tsx"], parser: typescript, indent: "  " },
  text: { label: "Other", endings: [], parser: null, indent: "    " },
};

export function languageOf(file: string): string {
  const ending = file.slice(file.lastIndexOf(".") + 1).toLowerCase();
  const found = Object.entries(LANGUAGES).find(([, language]) => language.endings.includes(ending));
  return found?.[0] ?? "text";
}

export function support(name: string): Extension {
  const parser = LANGUAGES[name]?.parser;
  return parser ? StreamLanguage.define(parser) : [];
}

export function indentOf(name: string): string {
  return LANGUAGES[name]?.indent ?? "    ";
}
