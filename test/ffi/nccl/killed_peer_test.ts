/** The other end's process is killed: this end is free again. */
import assert from "node:assert/strict";
import * as module from "../../../ffi/nccl/pair.ts";
import { directory } from "../software_device/device.ts";
import { ncclTest } from "./device.ts";
import { TextLineStream } from "./lines.ts";
import { ENDLESS_MS, PATIENCE_MS, until, watch } from "../../patience.ts";
import { End, type Libraries } from "./two_ends.ts";

interface Death {
  readonly killed: "source" | "destination";
  /** Of the killed end's communicator. */
  readonly state: "opening" | "posting" | "moving";
  /** NCCL sees nothing of the death, as over NVLink. Else it does, as over a network. */
  readonly isSilent: boolean;
  /** The owner learns of the death. Else there is nothing but the deadline. */
  readonly isKnown: boolean;
}

/** Faults that keep an end in a state. */
const slow = {
  opening: ["INIT_MS", 60_000],
  posting: ["GROUP_MS", 60_000],
  moving: ["MB_PER_S", 1],
} as const;

/** Of the transfer, where nothing but the deadline tells of the death: the first in which all goes as told. */
const DEADLINES_MS = [250, 2_000, 20_000];

/** The other end in a process of its own, and this one. */
class Peer {
  readonly end: End;
  states: Record<string, string> = {};
  sent = 0;
  failures = 0;
  readonly #child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-check"],
      new URL("killed_peer.ts", import.meta.url).href,
      directory!,
    ],
    env: { LLUMNIX_SOFTWARE_DEVICE: "progress=20" },
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  readonly #writer = this.#child.stdin.getWriter();
  readonly #reading: Promise<void>;

  constructor(libraries: Libraries) {
    this.end = new End(module, libraries, (message) => this.tell(message));
    this.#reading = this.#read();
  }

  tell(message: unknown): void {
    const bytes = new TextEncoder().encode(JSON.stringify(message) + "\n");
    this.#writer.write(bytes).catch(() => {}); // silent, as a lost network
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#reading;
    await this.#writer.close().catch(() => {});
  }

  async #read(): Promise<void> {
    const lines = this.#child.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream());
    for await (const line of lines) {
      const message = JSON.parse(line);
      if ("states" in message) this.states = message.states;
      else if ("sent" in message) message.sent ? this.sent++ : this.failures++;
      else this.end.pair.receive(message);
    }
  }
}

/** False if the machine was too slow: the deadline had passed before the peer was killed. */
async function run(libraries: Libraries, death: Death, deadlineMs: number): Promise<boolean> {
  const { killed, state, isSilent, isKnown } = death;
  const { faults } = libraries;
  faults.reset();
  const before = faults.counts();
  const peer = new Peer(libraries);
  const { end } = peer;
  const leftMs = isKnown ? ENDLESS_MS : deadlineMs;
  const send = (blocks: number[], leftMs: number) =>
    end.pair.send(end.runs(blocks), { note: { blocks }, leftMs });

  const side = killed === "source" ? "sending" : "receiving";
  await until(() => "sending" in peer.states, "the peer's process runs");
  if (state !== "opening") {
    if (killed === "destination") await send([7], PATIENCE_MS);
    else {
      peer.tell({ send: [7], leftMs: PATIENCE_MS });
      await until(() => peer.sent === 1, "the peer has sent");
    }
    await until(() => peer.states[side] === "idle", "the peer is idle");
  }
  const [fault, value] = slow[state];
  peer.tell({ fault, value });
  if (state === "moving") faults.set(fault, value);
  faults.set("SILENT_DEATH", isSilent ? 1 : 0);

  const sending = killed === "destination" ? send([0, 1], leftMs).catch((error) => error) : null;
  if (sending === null) peer.tell({ send: [0, 1], leftMs });
  const failures = peer.failures;
  const isVoid = () => peer.failures > failures || watched?.isSettled === true;
  const watched = sending === null ? null : watch(sending);
  await until(() => peer.states[side] === state || isVoid(), `the peer is ${state}`);
  await peer.kill();
  const isAsTold = peer.states[side] === state && !isVoid();
  if (isKnown) {
    end.pair.lose(new Error("the channel is closed"));
    end.pair.peerDied();
  }

  const isIdle = () => end.pair.states.sending === "none" && end.pair.states.receiving === "none";
  await until(isIdle, "this end has aborted");
  if (sending !== null) assert.ok(await sending instanceof Error);
  const last = end.arrivals.at(-1);
  if (!isKnown && last?.blocks[0] === 0) {
    if (isAsTold) assert.equal(last.isMoved, null, "a silent source can still write");
    end.pair.peerDied();
  }
  const isReleased = () => end.arrivals.every(({ isMoved }) => isMoved !== null);
  await until(isReleased, "the blocks are free");
  await until(() => faults.counts().threads <= before.threads, "its threads have ended");
  assert.deepEqual(faults.counts(), before, "left behind");
  end.free();
  faults.reset();
  return isAsTold;
}

const deaths: readonly Death[] = [
  { killed: "destination", state: "opening", isSilent: true, isKnown: false },
  { killed: "destination", state: "posting", isSilent: true, isKnown: true },
  { killed: "destination", state: "moving", isSilent: true, isKnown: false },
  { killed: "destination", state: "moving", isSilent: false, isKnown: false },
  { killed: "source", state: "opening", isSilent: false, isKnown: true },
  { killed: "source", state: "posting", isSilent: true, isKnown: false },
  { killed: "source", state: "moving", isSilent: true, isKnown: false },
  { killed: "source", state: "moving", isSilent: false, isKnown: true },
];

for (const death of deaths) {
  const { killed, state, isSilent, isKnown } = death;
  const how = `${isSilent ? "NCCL sees nothing" : "NCCL sees it"}, the owner ` +
    `${isKnown ? "learns of it" : "does not"}`;
  ncclTest(`NCCL pair: the ${killed} is killed while ${state}; ${how}`, async (libraries) => {
    for (const deadlineMs of DEADLINES_MS) {
      if (await run(libraries, death, deadlineMs)) return;
    }
    assert.fail(`the peer was never ${state} within ${DEADLINES_MS.at(-1)} ms`);
  });
}
