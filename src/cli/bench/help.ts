/** What the help of `llumnix bench` says after the arguments. */
import { notesText } from "../help.ts";

const notes = [
  "Latencies: TTFT is the time from when a request was due to its first token, E2EL to its last. " +
  "TPOT is (E2EL - TTFT) / (tokens - 1), a value per request; ITL is each time between two tokens. " +
  "A request that this client sent late counts as if it had been sent in time, and the table says how " +
  "late requests were sent.",
  "The exit code is 0, 1 if every request failed or the server does not answer, 2 for a wrong command " +
  "line, 130 after Ctrl-C, which reports what was measured so far.",
];

const examples = [
  "# a server that runs already",
  "llumnix bench --num-prompts 200 --request-rate 8 --random-input-len 256",
  "# start four instances of the built-in model, measure them, stop them",
  'llumnix bench --serve "--initial-instances 4 --enable-migration" --request-rate 8 --html report.html',
  "# without and with migration, three times in turn",
  'llumnix bench --compare "--initial-instances 4" "--initial-instances 4 --enable-migration" ' +
  "--qps 8 --distribution gamma --cv 4 --rounds 3",
];

export function benchNotes(width: number): string {
  return notesText(notes, examples, width);
}
