/** Elements of the page. */

/** The element with this id, which index.html has. */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) {
    throw new Error(`index.html has no ${kind.name} #${id}`);
  }
  return found;
}

export function element(name: string, text = "", className = ""): HTMLElement {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

export function say(id: string, text: string): void {
  const found = byId(id, HTMLElement);
  if (found.textContent !== text) {
    found.textContent = text;
  }
}
