/** Each takes one rule out of a pair. A scenario must notice each of them. */

export interface Mutant {
  /** What the pair does not do any more. */
  readonly rule: string;
  /** A file of `ffi/nccl/`. */
  readonly file: string;
  /** Text that occurs once in the file, and what replaces it. */
  readonly from: string;
  readonly to: string;
}

const communicator = "communicator.ts", source = "pair_source.ts";
const destination = "pair_destination.ts", pair = "pair.ts";

export const mutants: readonly Mutant[] = [
  {
    rule: "calls do not block",
    file: "nccl.ts",
    from: "blocking = false }",
    to: "blocking = true }",
  },
  {
    rule: "abort runs beside the event loop",
    file: "symbols.ts",
    from: `ncclCommAbort: { parameters: ["u64"], result: "i32", nonblocking: true }`,
    to: `ncclCommAbort: { parameters: ["u64"], result: "i32" }`,
  },
  {
    rule: "the event is recorded once the group is out of 7",
    file: communicator,
    from:
      `await this.#until(() => this.#isSettled(), deadlineMs, "the peer posts, too", "moving");`,
    to: "",
  },
  {
    rule: "the state counts, not the event alone",
    file: communicator,
    from: "return this.#isSettled() && isEventDone;",
    to: "return isEventDone;",
  },
  {
    rule: "the event counts, not the state alone",
    file: communicator,
    from: "return this.#isSettled() && isEventDone;",
    to: "return this.#isSettled() || isEventDone;",
  },
  {
    rule: "the state is read after the event",
    file: communicator,
    from: `const isEventDone = events.queryEvent(event);
        return this.#isSettled() && isEventDone;`,
    to: "return this.#isSettled() && events.queryEvent(event);",
  },
  {
    rule: "the state is read while the event is not done",
    file: communicator,
    from: "return this.#isSettled() && isEventDone;",
    to: "return isEventDone && this.#isSettled();",
  },
  {
    rule: "no call while the state is 7: posts wait for the opening",
    file: communicator,
    from:
      `await this.#until(() => this.#isSettled(), deadlineMs, "NCCL opens the communicator", "idle");`,
    to: `this.#state = "idle";`,
  },
  {
    rule: "a wait has a deadline",
    file: communicator,
    from: "if (nowMs > deadlineMs) {",
    to: "if (nowMs > deadlineMs + 1e9) {",
  },
  {
    rule: "a group that was begun is ended",
    file: communicator,
    from: `    } finally {
      nccl.groupEnd();
    }`,
    to: `    } catch (error) {
      throw error;
    }
    nccl.groupEnd();`,
  },
  {
    rule: "no poll follows the start of an abort",
    file: communicator,
    from: "if (attempt.stopped !== null) throw attempt.stopped;",
    to: "",
  },
  {
    rule: "a failed communicator is aborted",
    file: communicator,
    from: "this.#options.nccl.abort(handle)",
    to: "Promise.resolve(handle)",
  },
  {
    rule: "a failed communicator is aborted, not destroyed",
    file: communicator,
    from: "this.#options.nccl.abort(handle)",
    to: "this.#options.nccl.destroy(handle)",
  },
  {
    rule: "aborts do not wait for each other",
    file: communicator,
    from: "handles.map((handle) => this.#options.nccl.abort(handle))",
    to: `handles.map((handle) =>
      (globalThis as any).chain = ((globalThis as any).chain ?? Promise.resolve())
        .then(() => this.#options.nccl.abort(handle)))`,
  },
  {
    rule: "an abort has a limit",
    file: communicator,
    from: "const { abortLimitMs = ABORT_LIMIT_MS } = this.#options;",
    to: "const abortLimitMs = 1e9;",
  },
  {
    rule: "an abort that does not return makes the communicator dead",
    file: communicator,
    from: `this.#state = "dead";`,
    to: "",
  },
  {
    rule: "an abort that fails makes the communicator dead",
    file: communicator,
    from: "(error) => String(error));",
    to: "() => null);",
  },
  {
    rule: "an id that nobody joined is used up",
    file: communicator,
    from: "const standIn = await this.#useUpId();",
    to: "const standIn = 0n;",
  },
  {
    rule: "an idle communicator is finalized before it is destroyed, with a deadline",
    file: communicator,
    from: "nccl.finalize(this.#handle);",
    to: "",
  },
  {
    rule: "the id is made after the destination said that it is ready",
    file: source,
    from: `await this.#replies.take("ready", deadlineMs);`,
    to: "",
  },
  {
    rule: "an id makes one communicator",
    file: communicator,
    from: "nccl.uniqueId();",
    to: "((globalThis as any).oldId ??= nccl.uniqueId());",
  },
  {
    rule: "the source waits until the destination has its runs",
    file: source,
    from: `const answer = await this.#replies.take("posting", deadlineMs, number);`,
    to: `const answer = { kind: "" } as any;`,
  },
  {
    rule: "the destination posts at once, and does not wait for the source's post",
    file: destination,
    from: `    this.#say({ kind: "posting", number });
    try {
      await this.#communicator.transfer(claim.runs, deadlineMs);`,
    to: `    try {
      await this.#communicator.transfer(claim.runs, deadlineMs);
      this.#say({ kind: "posting", number });`,
  },
  {
    rule: `success needs the destination's "done"`,
    file: source,
    from: `await this.#replies.take("done", deadlineMs, number);`,
    to: "",
  },
  {
    rule: `"done" is said after the bytes are in place`,
    file: destination,
    from: `this.#say({ kind: "posting", number });`,
    to: `this.#say({ kind: "posting", number }), this.#say({ kind: "done", number });`,
  },
  {
    rule: "one transfer at a time in a direction",
    file: source,
    from: `      await turnOf(this.#readyAfter(previous), deadlineMs, options.signal);
      await`,
    to: "      await",
  },
  {
    rule: "crossing transfers have communicators and streams of their own",
    file: pair,
    from: "stream: receiveStream, rank: 1",
    to: "stream: sendStream, rank: 1",
  },
  {
    rule: "both ends agree on the exact list of byte counts",
    file: destination,
    from: "if (difference !== null) {",
    to: "if (false) {",
  },
  {
    rule: "a number is used once",
    file: destination,
    from: "if (number <= this.#lastNumber) {",
    to: "if (false) {",
  },
  {
    rule: "the source ignores messages of other epochs",
    file: source,
    from: "if (message.epoch !== this.#epoch) return;",
    to: "",
  },
  {
    rule: "the destination ignores messages of other epochs",
    file: destination,
    from: "if (message.epoch !== this.#epoch || this.#isOver) return;",
    to: "",
  },
  {
    rule: "the destination ignores failures of other epochs",
    file: destination,
    from: "if (epoch === this.#epoch) this.lose(",
    to: "this.lose(",
  },
  {
    rule: "the source tells of its failure",
    file: source,
    from: `this.#tell({ from: "source", epoch, kind: "fail", reason: reason.message });`,
    to: "",
  },
  {
    rule: "the destination tells of its failure",
    file: destination,
    from: `this.#tell({ from: "destination", epoch, kind: "fail", reason: reason.message });`,
    to: "",
  },
  {
    rule: "the source aborts when the destination has failed",
    file: source,
    from: `if (message.kind === "fail") this.lose(new TransferFailedError(message.reason));
    else`,
    to: "",
  },
  {
    rule: "the signal ends a transfer",
    file: source,
    from: `const onAbort = () => this.lose(new TransferFailedError("the transfer was aborted"));`,
    to: "const onAbort = () => {};",
  },
  {
    rule: "the source says that its abort has returned",
    file: source,
    from: `if (this.#epoch > 0) this.#tell(`,
    to: "if (false) this.#tell(",
  },
  {
    rule: "runs are free after the source's abort only",
    file: destination,
    from: "while (this.#sourceEnded < epoch && !this.#isPeerDead) {",
    to: "while (false) {",
  },
  {
    rule: "runs are free after the own abort only",
    file: destination,
    from: `      await aborted;
`,
    to: "",
  },
  {
    rule: "runs are free when the source's process is dead",
    file: destination,
    from: "this.#isPeerDead = true;",
    to: "",
  },
  {
    rule: "a source that begins again has ended what was before",
    file: destination,
    from: "this.#noteSourceEnded(epoch - 1);",
    to: "",
  },
  {
    rule: `"ready" is said after the own abort`,
    file: destination,
    from: `await this.#fail(new TransferFailedError("the source began again"));`,
    to: `this.#failing = null;`,
  },
  {
    rule: "a lost channel aborts what comes in",
    file: pair,
    from: `    this.#source.lose(reason);
    this.#destination.lose(reason);`,
    to: "    this.#source.lose(reason);",
  },
  {
    rule: "a lost channel aborts what is sent",
    file: pair,
    from: `    this.#source.lose(reason);
    this.#destination.lose(reason);`,
    to: "    this.#destination.lose(reason);",
  },
];
