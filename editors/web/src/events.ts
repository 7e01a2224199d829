/** Server-sent events that hold JSON, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them. */

/** The objects of a stream, up to `[DONE]`. Leaving the loop closes the stream. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<unknown> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += value ?? "";
      const parts = rest.split("\n\n");
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const data = part.startsWith("data: ") ? part.slice(6) : "";
        if (data === "[DONE]") {
          return;
        }
        if (data !== "") {
          yield JSON.parse(data);
        }
      }
      if (done) {
        throw new Error("the answer broke off");
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined); // it may have been closed from the other end
  }
}
