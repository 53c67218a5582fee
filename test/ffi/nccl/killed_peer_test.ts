/** The other end's process is killed: this end is free again by its deadline and a second. */
import assert from "node:assert/strict";
import * as module from "../../../ffi/nccl/pair.ts";
import { directory } from "../software_device/device.ts";
import { ncclTest } from "./device.ts";
import { TextLineStream } from "./lines.ts";
import { End, type Libraries, until } from "./two_ends.ts";

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

const DEADLINE_MS = 250;
const GRACE_MS = 1_000;

/** The other end in a process of its own, and this one. */
class Peer {
  readonly end: End;
  states: Record<string, string> = {};
  sent = 0;
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
    this.end = new End(module, libraries, (message) => this.tell(message), 5_000);
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
      else if ("sent" in message) this.sent++;
      else this.end.pair.receive(message);
    }
  }
}

async function run(libraries: Libraries, { killed, state, isSilent, isKnown }: Death) {
  const { faults } = libraries;
  faults.reset();
  const before = faults.counts();
  const peer = new Peer(libraries);
  const { end } = peer;
  const leftMs = isKnown ? 30_000 : DEADLINE_MS;
  const send = (blocks: number[], leftMs: number) =>
    end.pair.send(end.runs(blocks), { note: { blocks }, leftMs });

  const side = killed === "source" ? "sending" : "receiving";
  await until(() => "sending" in peer.states, 10_000, "the peer's process runs");
  if (state !== "opening") {
    if (killed === "destination") await send([7], 5_000);
    else {
      peer.tell({ send: [7], leftMs: 5_000 });
      await until(() => peer.sent === 1, 5_000, "the peer has sent");
    }
    await until(() => peer.states[side] === "idle", 1_000, "the peer is idle");
  }
  const [fault, value] = slow[state];
  peer.tell({ fault, value });
  if (state === "moving") faults.set(fault, value);
  faults.set("SILENT_DEATH", isSilent ? 1 : 0);

  const startMs = performance.now();
  const sending = killed === "destination" ? send([0, 1], leftMs).catch((error) => error) : null;
  if (sending === null) peer.tell({ send: [0, 1], leftMs });
  await until(() => peer.states[side] === state, 2_000, `the peer is ${state}`);
  await peer.kill();
  const killedMs = performance.now();
  if (isKnown) {
    end.pair.lose(new Error("the channel is closed"));
    end.pair.peerDied();
  }

  const isIdle = () => end.pair.states.sending === "none" && end.pair.states.receiving === "none";
  await until(isIdle, 5_000, "this end has aborted");
  const tookMs = performance.now() - (isKnown ? killedMs : startMs);
  const limitMs = GRACE_MS + (isKnown ? 0 : DEADLINE_MS);
  assert.ok(tookMs <= limitMs, `took ${tookMs.toFixed(0)} ms of ${limitMs}`);
  if (sending !== null) assert.ok(await sending instanceof Error);
  const last = end.arrivals.at(-1);
  if (!isKnown && last?.blocks[0] === 0) {
    assert.equal(last.isMoved, null, "a silent source can still write");
    end.pair.peerDied();
  }
  const isReleased = () => end.arrivals.every(({ isMoved }) => isMoved !== null);
  await until(isReleased, 200, "the blocks are free");
  await until(() => faults.counts().threads <= before.threads, 500, "its threads have ended");
  assert.deepEqual(faults.counts(), before, "left behind");
  end.free();
  faults.reset();
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
    await run(libraries, death);
  });
}
