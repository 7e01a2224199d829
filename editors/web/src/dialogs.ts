/** The list of keys, and the question for an API key. */

import { byId, element, say } from "./dom";
import { KEYS } from "./keys";

/** `closed`: a dialog was closed. `given`: with a key. */
export function setUpDialogs(closed: () => void, given: (key: string) => void): void {
  for (const [keys, what] of KEYS) {
    const term = element("dt");
    term.append(...keys.map((one) => element("kbd", one)));
    byId("keys", HTMLElement).append(term, element("dd", what));
  }
  byId("help", HTMLElement).addEventListener("close", closed);
  document.addEventListener("keydown", (event) => {
    const isTyped = event.target instanceof HTMLElement && event.target.matches("input, select, .cm-content");
    const isOpen = document.querySelector("dialog[open]") !== null;
    if (!isOpen && !event.defaultPrevented && (event.key === "F1" || (event.key === "?" && !isTyped))) {
      event.preventDefault();
      help();
    }
  });
  const dialog = byId("key-dialog", HTMLDialogElement);
  dialog.addEventListener("close", () => {
    const input = byId("key", HTMLInputElement);
    const key = input.value.trim();
    input.value = "";
    if (dialog.returnValue === "ok") {
      given(key);
    }
    closed();
  });
}

export function help(): boolean {
  byId("help", HTMLDialogElement).showModal();
  byId("help-close", HTMLElement).focus();
  return true;
}

export function askForKey(why: string): void {
  say("key-said", `${why}This server wants a key. It is kept until the tab is closed.`);
  const dialog = byId("key-dialog", HTMLDialogElement);
  dialog.returnValue = "";
  if (!dialog.open) {
    dialog.showModal();
  }
}
