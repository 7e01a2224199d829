/** The editor: CodeMirror with our ghost text, marks and colours. */

import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { Compartment, EditorState, type Extension } from "@codemirror/state";
import {
  drawSelection,
  dropCursor,
  EditorView,
  highlightActiveLine,
  highlightActiveLineGutter,
  highlightSpecialChars,
  keymap,
  lineNumbers,
  placeholder,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { ghostKeys, suggestion } from "./ghost";
import { marks } from "./holes";
import { indentOf, support } from "./languages";
import { traces } from "./traces";

const language = new Compartment();

const COLOURS = HighlightStyle.define([
  { tag: [tags.keyword, tags.modifier, tags.controlKeyword], class: "tok-keyword" },
  { tag: [tags.string, tags.special(tags.string), tags.character], class: "tok-string" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], class: "tok-number" },
  { tag: tags.comment, class: "tok-comment" },
  { tag: [tags.definition(tags.variableName), tags.function(tags.variableName)], class: "tok-definition" },
  { tag: [tags.typeName, tags.standard(tags.name), tags.className, tags.meta], class: "tok-type" },
]);

/** `more`: what reacts to the editor; its keys come before the editor's own. */
export function editor(parent: HTMLElement, nonce: string, languageName: string, more: Extension): EditorView {
  const state = EditorState.create({
    extensions: [
      EditorView.cspNonce.of(nonce),
      EditorState.allowMultipleSelections.of(true),
      EditorView.clickAddsSelectionRange.of((event) => event.altKey || event.ctrlKey || event.metaKey),
      EditorView.contentAttributes.of({ "aria-label": "Code", spellcheck: "false", autocapitalize: "off", tabindex: "0" }),
      ghostKeys,
      more,
      marks,
      suggestion,
      traces,
      lineNumbers(),
      highlightActiveLine(),
      highlightActiveLineGutter(),
      highlightSpecialChars(),
      history(),
      drawSelection(),
      dropCursor(),
      indentOnInput(),
      bracketMatching(),
      syntaxHighlighting(COLOURS),
      placeholder("Type code, or drop a file here."),
      language.of(forLanguage(languageName)),
      keymap.of([...defaultKeymap, ...historyKeymap, indentWithTab]),
    ],
  });
  return new EditorView({ state, parent });
}

function forLanguage(name: string): Extension {
  return [support(name), indentUnit.of(indentOf(name))];
}

export function setLanguage(view: EditorView, name: string): void {
  view.dispatch({ effects: language.reconfigure(forLanguage(name)) });
}

/** Another text in the place of the one that is there. */
export function setText(view: EditorView, text: string): void {
  view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: text }, selection: { anchor: 0 } });
  view.focus();
}
