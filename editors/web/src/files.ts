/** Files that are opened with the button, or dropped on the page. They are read, and never written. */

import { byId } from "./dom";

const MOST_BYTES = 4 << 20;

export interface Receiver {
  opened(name: string, text: string): void;
  refused(why: string): void;
}

export function setUpFiles(receiver: Receiver): void {
  const input = byId("file", HTMLInputElement);
  input.addEventListener("change", () => {
    const [found] = input.files ?? [];
    if (found !== undefined) {
      void read(found, receiver).finally(() => (input.value = "")); // so that the same one can be opened again
    }
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!event.defaultPrevented) {
      dropped(event, receiver);
    }
  });
}

export function chooseFile(): boolean {
  byId("file", HTMLInputElement).click();
  return true;
}

/** Whether it was a file; text that is moved is the editor's business. */
export function dropped(event: DragEvent, receiver: Receiver): boolean {
  const file = event.dataTransfer?.files[0];
  if (file === undefined) {
    return false;
  }
  event.preventDefault();
  void read(file, receiver);
  return true;
}

async function read(file: File, receiver: Receiver): Promise<void> {
  const text = file.size > MOST_BYTES ? null : decoded(await file.arrayBuffer());
  if (text === null) {
    receiver.refused(`${file.name} is no text in UTF-8 of at most ${MOST_BYTES >> 20} MiB; open another`);
  } else {
    receiver.opened(file.name, text);
  }
}

function decoded(bytes: ArrayBuffer): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}
