/** What the status bar says. */

import type { ServerError } from "./server";

/** sources: of what was suggested last, a line each. */
export type State =
  | { kind: "off" }
  | { kind: "ready"; sources?: readonly string[] }
  | { kind: "asking" }
  | { kind: "trouble"; error: ServerError };

export interface Shown {
  text: string;
  tooltip: string;
  command: string;
}

export function status(state: State): Shown {
  const toggle = "codegen25.toggle";
  switch (state.kind) {
    case "off":
      return { text: "$(circle-slash) codegen25", tooltip: "Suggestions are off; click to turn them on", command: toggle };
    case "ready":
      if (state.sources?.length) {
        return { text: "$(law) codegen25", tooltip: `What was suggested stands in\n${state.sources.join("\n")}`, command: toggle };
      }
      return { text: "$(sparkle) codegen25", tooltip: "Suggestions are on; click to turn them off", command: toggle };
    case "asking":
      return { text: "$(loading~spin) codegen25", tooltip: "The model is asked", command: toggle };
    case "trouble": {
      const { trouble, message } = state.error;
      const command = trouble === "unreachable" ? "codegen25.startServer" : toggle;
      const hint = trouble === "unreachable" ? "; click to start it in a terminal" : "";
      const icon = trouble === "loading" ? "$(watch)" : "$(warning)";
      return { text: `${icon} codegen25`, tooltip: message + hint, command };
    }
  }
}
