/** Asks for suggestions: after a pause in typing, or when told to. One request at a time; a newer one ends the older. */

import { type EditorState, type Extension, StateEffect } from "@codemirror/state";
import { EditorView, type ViewUpdate } from "@codemirror/view";
import { blank, type Candidate, grown } from "./answer";
import { type Client, ServerError, type Usage } from "./client";
import { ghostTexts, grow, setSuggestion, suggestion } from "./ghost";
import { holes, marks, parts } from "./holes";
import type { Settings } from "./settings";
import { choices, type Hole, rebased, type Suggestion, turned, withoutBlanks } from "./suggestion";

/** Milliseconds without a key before a suggestion is asked for. */
const PAUSE = 75;
/** What is drawn when somebody wants to see others, and at which temperature. */
const OTHERS = 3;
const TEMPERATURE = 0.8;
const LIKELY = 4;

/** Milliseconds from the request on. `first`: to the first text. */
export interface Timing {
  first: number;
  whole: number;
  usage: Usage;
}

/** What the page shows of it. */
export interface Observer {
  asking(holes: number): void;
  changed(): void;
  answered(timing: Timing): void;
  nothing(): void;
  /** The request was ended before its answer. */
  stopped(): void;
  failed(error: ServerError): void;
}

export class Assistant {
  private view: EditorView | undefined;
  private timer = 0;
  private abort: AbortController | undefined;
  private ids = 0;
  /** The suggestion that the request under way is for, as it was when it was asked. */
  private asked: Suggestion | undefined;
  private others = false;

  constructor(
    private readonly client: Client,
    private readonly settings: () => Settings,
    private readonly observer: Observer,
  ) {}

  get extension(): Extension {
    return EditorView.updateListener.of((update) => this.updated(update));
  }

  private updated(update: ViewUpdate): void {
    this.view = update.view;
    const before = update.startState.field(suggestion);
    const now = update.state.field(suggestion);
    if (before !== now) {
      this.observer.changed();
    }
    if (before !== null && now === null && !isReplaced(update)) {
      this.stop();
    }
    if (update.docChanged) {
      window.clearTimeout(this.timer);
      if (now === null && isTyped(update) && this.settings().automatic && isPlain(update.state)) {
        this.stop();
        this.timer = window.setTimeout(() => this.ask(), PAUSE);
      }
    }
  }

  /** End what is under way, or about to be asked. */
  stop(): void {
    window.clearTimeout(this.timer);
    if (this.abort !== undefined) {
      this.abort.abort();
      this.abort = undefined;
      this.observer.stopped();
    }
    this.others = false;
  }

  /** A suggestion for every hole. */
  ask(): void {
    const { view } = this;
    if (view === undefined) {
      return;
    }
    this.stop();
    const found = holes(view.state);
    const { around, typed } = this.around(view.state, found);
    this.ids += 1;
    const made: Suggestion = {
      id: this.ids,
      holes: found,
      pinned: found.length > 1 || view.state.field(marks).length > 0,
      candidates: [blank(found.length)],
      shown: 0,
      typed,
    };
    view.dispatch({ effects: [setSuggestion.of(made), replaced.of(null)] });
    void this.run(view, made, around, 1, 0);
  }

  /** The next candidate or the last; where there is one only, others are drawn first. */
  turn(step: 1 | -1): boolean {
    const { view } = this;
    const value = view?.state.field(suggestion);
    if (view === undefined || value === null || value === undefined) {
      return false;
    }
    if (value.candidates.length > 1) {
      view.dispatch({ effects: [setSuggestion.of(turned(value, step)), replaced.of(null)] });
    } else if (this.abort !== undefined) {
      this.others = true; // when the first has ended
    } else {
      this.drawOthers(view, value);
    }
    return true;
  }

  private drawOthers(view: EditorView, value: Suggestion): void {
    const { around, typed } = this.around(view.state, value.holes);
    const { candidates, ...from } = rebased(value, typed);
    const added = Array.from({ length: OTHERS }, () => blank(value.holes.length));
    const made = { ...from, candidates: [...candidates, ...added], shown: candidates.length };
    view.dispatch({ effects: [setSuggestion.of(made), replaced.of(null)] });
    void this.run(view, made, around, OTHERS, candidates.length);
  }

  /** The texts around the holes, and how the answers are to begin: where log-probabilities are asked for, the server
   * takes a prompt as it is, and answers poorly behind a blank. */
  private around(state: EditorState, found: readonly Hole[]): { around: string[]; typed: string[] } {
    const around = parts(state, found);
    return this.settings().probabilities ? withoutBlanks(around) : { around, typed: found.map(() => "") };
  }

  private async run(
    view: EditorView,
    made: Suggestion,
    around: readonly string[],
    n: number,
    firstNumber: number,
  ): Promise<void> {
    const abort = new AbortController();
    this.abort = abort;
    this.asked = made;
    const { maxTokens, lines, probabilities } = this.settings();
    const logprobs = !probabilities ? undefined : made.holes.length > 1 ? 0 : LIKELY;
    const wish = { parts: around, maxTokens, lines, n, temperature: n > 1 ? TEMPERATURE : 0, logprobs };
    this.observer.asking(made.holes.length);
    const started = performance.now();
    let first = 0;
    let candidates: readonly Candidate[] = made.candidates;
    try {
      for await (const frame of this.client.complete(wish, abort.signal)) {
        if (abort.signal.aborted) {
          return;
        }
        if (frame.choices.some((choice) => choice.text !== "" || choice.finish_reason !== null)) {
          first ||= performance.now() - started;
        }
        if (frame.choices.length > 0) {
          candidates = grown(candidates, frame, firstNumber);
          view.dispatch({ effects: grow.of({ id: made.id, candidates }) });
        }
        if (frame.usage) {
          this.observer.answered({ first, whole: performance.now() - started, usage: frame.usage });
        }
      }
    } catch (error) {
      this.failed(error, abort, view);
      return;
    }
    this.ended(abort, view);
  }

  private ended(abort: AbortController, view: EditorView): void {
    if (this.abort !== abort) {
      return;
    }
    this.abort = undefined;
    const value = view.state.field(suggestion);
    if (value === null || value.id !== this.asked?.id) {
      return;
    }
    if (this.others) {
      this.others = false;
      this.drawOthers(view, value);
      return;
    }
    // Candidates that turned out to be the same as another are skipped.
    const settled = choices({ ...value, shown: 0 }).includes(value.shown) ? value : turned(value, 1);
    view.dispatch({ effects: [setSuggestion.of(settled), replaced.of(null)] });
    if (ghostTexts(view.state).some((text) => text !== "")) {
      view.dispatch({ effects: EditorView.announce.of(announcement(view.state)) });
      return;
    }
    view.dispatch({ effects: setSuggestion.of(null) });
    if (value.typed[0] !== this.asked.typed[0] && this.settings().automatic) {
      this.ask(); // all of it was accepted while it came
    } else {
      this.observer.nothing();
    }
  }

  private failed(error: unknown, abort: AbortController, view: EditorView): void {
    if (abort.signal.aborted || (error instanceof ServerError && error.status === 409)) {
      return; // we, or a newer request of ours, have ended it
    }
    this.abort = undefined;
    view.dispatch({ effects: setSuggestion.of(null) });
    if (error instanceof ServerError) {
      this.observer.failed(error);
    } else {
      this.observer.failed(new ServerError(0, "the answer broke off; type on to ask again"));
      throw error;
    }
  }
}

/** Marks a change of the suggestion that is ours: the request goes on. */
const replaced = StateEffect.define<null>();

function isReplaced(update: ViewUpdate): boolean {
  return update.transactions.some((one) => one.effects.some((effect) => effect.is(replaced)));
}

function isTyped(update: ViewUpdate): boolean {
  return update.transactions.some((one) => one.isUserEvent("input") || one.isUserEvent("delete"));
}

/** One cursor, nothing selected, no holes marked. */
function isPlain(state: EditorState): boolean {
  return state.selection.ranges.length === 1 && state.selection.main.empty && state.field(marks).length === 0;
}

/** For those who do not see it. */
function announcement(state: EditorState): string {
  const texts = ghostTexts(state).filter((text) => text.trim() !== "");
  return `Suggestion: ${texts.join("; ")}`;
}
