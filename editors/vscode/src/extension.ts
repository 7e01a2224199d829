/** The extension: VS Code's side of it. What can be known without VS Code is in the other files. */

import { randomUUID } from "node:crypto";
import * as vscode from "vscode";
import { parts, shown, sorted, spread } from "./parts";
import { fill, type Lines, ServerError, type Settings } from "./server";
import { type State, status } from "./status";

const KEY = "codegen25.key";

export function activate(context: vscode.ExtensionContext): void {
  const assistant = new Assistant(context);
  context.subscriptions.push(
    assistant,
    vscode.languages.registerInlineCompletionItemProvider({ pattern: "**" }, assistant),
    vscode.commands.registerCommand("codegen25.fillHoles", () => assistant.fillHoles()),
    vscode.commands.registerCommand("codegen25.toggle", () => assistant.toggle()),
    vscode.commands.registerCommand("codegen25.startServer", () => assistant.startServer()),
    vscode.commands.registerCommand("codegen25.setKey", () => assistant.setKey()),
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration("codegen25")) {
        assistant.show(assistant.resting());
      }
    }),
  );
}

class Assistant implements vscode.InlineCompletionItemProvider, vscode.Disposable {
  private readonly client = randomUUID();
  private asking = 0;
  private sources: readonly string[] = [];
  private readonly bar = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Right, 100);

  constructor(private readonly context: vscode.ExtensionContext) {
    this.show(this.resting());
    this.bar.show();
  }

  dispose(): void {
    this.bar.dispose();
  }

  resting(): State {
    if (this.asking > 0) {
      return { kind: "asking" };
    }
    return setting<boolean>("enabled") ? { kind: "ready", sources: this.sources } : { kind: "off" };
  }

  show(state: State): void {
    Object.assign(this.bar, status(state));
  }

  // --------------------------------------------------------------------------------------------------- ghost text

  async provideInlineCompletionItems(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
  ): Promise<vscode.InlineCompletionItem[]> {
    const several = (vscode.window.activeTextEditor?.selections.length ?? 1) > 1;
    const automatic = context.triggerKind === vscode.InlineCompletionTriggerKind.Automatic;
    if (several || (automatic && !setting<boolean>("enabled"))) {
      return [];
    }
    if (automatic) {
      await new Promise((resolve) => setTimeout(resolve, setting<number>("debounce")));
    }
    if (token.isCancellationRequested) {
      return [];
    }
    const chosen = context.selectedCompletionInfo;
    const range = chosen?.range ?? new vscode.Range(position, position);
    const text = document.getText();
    const [start, end] = [document.offsetAt(range.start), document.offsetAt(range.end)];
    const typed = text.slice(0, start) + (chosen?.text ?? "");
    const around = parts(typed + text.slice(end), [typed.length]);
    const found = await this.ask(around, document.uri.toString(), token);
    const answer = shown(found?.[0] ?? "", around[1] ?? "");
    return answer === "" ? [] : [new vscode.InlineCompletionItem((chosen?.text ?? "") + answer, range)];
  }

  // ------------------------------------------------------------------------------------------------ several holes

  /** Text at every cursor, each with the others' in mind; one step to undo. Selected text is replaced. */
  async fillHoles(): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined) {
      return;
    }
    const { document } = editor;
    const version = document.version;
    const ordered = [...editor.selections].sort((a, b) => a.start.compareTo(b.start));
    const { text, offsets } = holes(document, ordered);
    const places = sorted(text, offsets);
    const options = { location: vscode.ProgressLocation.Notification, title: "codegen25", cancellable: true };
    const found = await vscode.window.withProgress(options, (progress, token) => {
      progress.report({ message: places.length === 1 ? "one hole" : `${places.length} holes` });
      return this.ask(parts(text, places), "holes", token, true);
    });
    if (found === undefined) {
      return;
    }
    if (document.version !== version) {
      void vscode.window.showWarningMessage("codegen25: the file has changed meanwhile; nothing was filled in");
      return;
    }
    const answers = spread(offsets, found);
    await editor.edit((edit) => {
      ordered.forEach((selection, number) => edit.replace(selection, answers[number] ?? ""));
    });
  }

  // ---------------------------------------------------------------------------------------------------- the server

  /** The server's answers; undefined when there are none, which the status bar explains. */
  private async ask(
    around: readonly string[],
    about: string,
    token: vscode.CancellationToken,
    loud = false,
  ): Promise<string[] | undefined> {
    const abort = new AbortController();
    const listening = token.onCancellationRequested(() => abort.abort());
    this.asking += 1;
    let state: State | undefined;
    this.show(this.resting());
    try {
      const answers = await fill(await this.settings(), around, `${this.client} ${about}`, abort.signal);
      this.sources = answers.sources;
      return answers.texts;
    } catch (error) {
      if (abort.signal.aborted || (error instanceof ServerError && error.trouble === "superseded")) {
        return undefined;
      }
      if (!(error instanceof ServerError)) {
        throw error;
      }
      state = { kind: "trouble", error };
      if (loud) {
        void vscode.window.showErrorMessage(`codegen25: ${error.message}`);
      }
      return undefined;
    } finally {
      listening.dispose();
      this.asking -= 1;
      this.show(state ?? this.resting());
    }
  }

  private async settings(): Promise<Settings> {
    return {
      url: setting<string>("url"),
      key: (await this.context.secrets.get(KEY)) ?? "",
      model: setting<string>("model"),
      maxTokens: setting<number>("maxTokens"),
      lines: setting<Lines>("lines"),
      anchorLines: setting<number>("anchorLines"),
    };
  }

  async toggle(): Promise<void> {
    const settings = vscode.workspace.getConfiguration("codegen25");
    await settings.update("enabled", !setting<boolean>("enabled"), vscode.ConfigurationTarget.Global);
  }

  startServer(): void {
    const terminal = vscode.window.createTerminal("codegen25");
    terminal.show(true);
    terminal.sendText(setting<string>("command"));
    this.show(this.resting());
  }

  async setKey(): Promise<void> {
    const key = await vscode.window.showInputBox({ prompt: "The server's API key; empty for none", password: true });
    if (key !== undefined) {
      await this.context.secrets.store(KEY, key.trim());
    }
  }
}

function setting<T>(name: string): T {
  return vscode.workspace.getConfiguration("codegen25").get<T>(name) as T;
}

/** The text without what is selected, from the top, and where that was. */
function holes(document: vscode.TextDocument, selections: readonly vscode.Selection[]): { text: string; offsets: number[] } {
  const text = document.getText();
  let kept = "";
  let from = 0;
  const offsets: number[] = [];
  for (const selection of selections) {
    kept += text.slice(from, document.offsetAt(selection.start));
    offsets.push(kept.length);
    from = document.offsetAt(selection.end);
  }
  return { text: kept + text.slice(from), offsets };
}
