import type { TextOutput } from "../frontend/service.ts";
import { ClientLeftError, toErrorReply } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import type { Generation } from "./generation.ts";
import { type ResumableStream, RESUME_ID_HEADER } from "./resumption.ts";

/** How a route writes its stream. */
export interface StreamFormat {
  readonly contentType: string;
  /** Text between two events that clients ignore. */
  readonly neutral: string;
  /** Frames one JSON document as an event. */
  readonly frame: (json: string) => string;
  /** Events for an output; "" for none. `congested`: the client is behind. */
  readonly events: (index: number, output: TextOutput, congested: boolean) => string;
  /** Gives the events their ids; absent: they have none. */
  readonly resumable?: ResumableStream | null;
  /** Events after the last output. */
  readonly closing: () => string;
}

/** Server-sent events. */
export const serverSentEvents = {
  contentType: "text/event-stream; charset=utf-8",
  neutral: ":\n\n",
  frame: (json: string) => `data: ${json}\n\n`,
};

/** Runs the generation into a stream. An error in mid-stream is the stream's last event. */
export async function streamOutput(
  exchange: Exchange,
  generation: Generation,
  format: StreamFormat,
): Promise<void> {
  const { resumable } = format;
  if (resumable) exchange.setHeader(RESUME_ID_HEADER, resumable.streamId);
  const writer = exchange.openStream(format.contentType, format.neutral);
  try {
    await generation.run((index, output) => {
      const events = format.events(index, output, writer.congested);
      writer.push(resumable ? resumable.mark(events, output) : events);
    });
    writer.push(format.closing());
  } catch (error) {
    if (!(error instanceof ClientLeftError)) {
      writer.push(format.frame(JSON.stringify(toErrorReply(error).body)));
    }
    throw error;
  } finally {
    writer.end();
  }
}
