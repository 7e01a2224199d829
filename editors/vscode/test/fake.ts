/** As much of VS Code's API as the extension uses, over a document in memory. Tests are built with it as `vscode`. */

export class Position {
  constructor(
    readonly line: number,
    readonly character: number,
  ) {}

  compareTo(other: Position): number {
    return this.line - other.line || this.character - other.character;
  }
}

export class Range {
  constructor(
    readonly start: Position,
    readonly end: Position,
  ) {}
}

export const Selection = Range;

export class InlineCompletionItem {
  constructor(
    readonly insertText: string,
    readonly range: Range,
  ) {}
}

export const InlineCompletionTriggerKind = { Invoke: 0, Automatic: 1 };
export const StatusBarAlignment = { Left: 1, Right: 2 };
export const ProgressLocation = { Notification: 15 };
export const ConfigurationTarget = { Global: 1 };

export class CancellationToken {
  isCancellationRequested = false;
  private heard: (() => void)[] = [];

  onCancellationRequested = (listener: () => void): { dispose(): void } => {
    this.heard.push(listener);
    return { dispose: () => (this.heard = this.heard.filter((one) => one !== listener)) };
  };

  cancel(): void {
    this.isCancellationRequested = true;
    this.heard.forEach((listener) => listener());
  }
}

/** Lines end in CRLF, as a file of Windows has them. */
export class Document {
  version = 1;
  uri = "file:///work/ä.py";

  constructor(public text: string) {}

  getText = (): string => this.text;
  offsetAt = ({ line, character }: Position): number =>
    this.text.split("\r\n").slice(0, line).join("\r\n").length + (line > 0 ? 2 : 0) + character;
}

export class Editor {
  selections: Range[] = [];

  constructor(readonly document: Document) {}

  /** All replacements at once, by the offsets before them. */
  async edit(make: (builder: { replace(range: Range, text: string): void }) => void): Promise<boolean> {
    const edits: { start: number; end: number; text: string }[] = [];
    const at = this.document.offsetAt;
    make({ replace: (range, text) => edits.push({ start: at(range.start), end: at(range.end), text }) });
    for (const { start, end, text } of edits.reverse()) {
      this.document.text = this.document.text.slice(0, start) + text + this.document.text.slice(end);
    }
    this.document.version += 1;
    return true;
  }
}

/** What a test sets, and what it looks at. */
export const state = {
  settings: new Map<string, unknown>(),
  commands: new Map<string, () => unknown>(),
  provider: undefined as unknown,
  bar: {} as { text?: string; tooltip?: string; command?: string },
  shown: [] as string[],
  typed: [] as string[],
  configured: (() => undefined) as (change: { affectsConfiguration(name: string): boolean }) => void,
};

const nothing = { dispose: () => undefined };

export const window = {
  activeTextEditor: undefined as Editor | undefined,
  createStatusBarItem: () => Object.assign(state.bar, { show: () => undefined, dispose: () => undefined }),
  withProgress: (_: unknown, work: (progress: unknown, token: CancellationToken) => unknown) =>
    work({ report: () => undefined }, new CancellationToken()),
  showWarningMessage: async (text: string) => void state.shown.push(text),
  showErrorMessage: async (text: string) => void state.shown.push(text),
  showInputBox: async () => " key ",
  createTerminal: () => ({ show: () => undefined, sendText: (text: string) => state.typed.push(text) }),
};

export const languages = {
  registerInlineCompletionItemProvider: (_: unknown, provider: unknown) => {
    state.provider = provider;
    return nothing;
  },
};

export const commands = {
  registerCommand: (name: string, command: () => unknown) => {
    state.commands.set(name, command);
    return nothing;
  },
};

export const workspace = {
  getConfiguration: () => ({
    get: (name: string) => state.settings.get(name),
    update: async (name: string, value: unknown) => {
      state.settings.set(name, value);
      state.configured({ affectsConfiguration: () => true });
    },
  }),
  onDidChangeConfiguration: (listener: typeof state.configured) => {
    state.configured = listener;
    return nothing;
  },
};
