/** Peers on the bus that say something else than they should. */
import { openBus } from "../../src/bus/open_bus.ts";
import { ClusterClient } from "../../src/client/cluster_client.ts";
import { realClock } from "../../src/core/clock.ts";
import { LlumnixError } from "../../src/core/errors.ts";
import { calls, notifications } from "../../src/core/protocol/calls.ts";
import type { Random } from "../../src/core/random.ts";
import { generateRequest } from "../instance/support.ts";
import { type FuzzCluster, makeInstance } from "./cluster.ts";
import type { Conversation, Step } from "./conversation.ts";
import { mutateBytes, mutateData, randomBytes } from "./mutate.ts";
import { frameOf, greeting, type Record, Rogue } from "./rogue.ts";

const NOTIFY = 0, CALL = 1, RESULT = 2;
const LAST_CALL = 1_000_000;
/** Steps of a conversation that are said again, at most: its end is like its middle. */
const MAX_STEPS = 24;

/** Frames that one end says, some of which are not as they should be. */
function spoken(steps: readonly Step[], random: Random): Uint8Array<ArrayBuffer>[] {
  const from = random.below(Math.max(1, steps.length - MAX_STEPS + 1));
  const isWhole = steps.length <= MAX_STEPS || random.below(2) === 0;
  const chosen = isWhole ? steps.slice(0, MAX_STEPS) : steps.slice(from, from + MAX_STEPS);
  const victim = random.below(chosen.length);
  return chosen.flatMap((step, i) => {
    if (i !== victim && random.below(20) !== 0) return [frame(step, i)];
    switch (random.below(8)) {
      case 0:
        return [mutateBytes(frame(step, i), random)];
      case 1:
        return [randomBytes(1 + random.below(200), random)];
      case 2:
        return [frame({ ...step, method: anyMethod(random) }, i)];
      case 3:
        return [frame(step, i), frame(step, i)];
      case 4:
        return [frame({ ...step, payload: randomBytes(random.below(100), random) }, i)];
      case 5: {
        const record = mutateData(recordOf(step, i), random);
        return [frameOf(JSON.stringify([record]))];
      }
      default:
        return [frame({ ...step, data: mutateData(step.data, random) }, i)];
    }
  });
}

function anyMethod(random: Random): string {
  const methods = [...Object.keys(calls), ...Object.keys(notifications), "constructor", ""];
  return methods[random.below(methods.length)];
}

function frame(step: Step, id: number): Uint8Array<ArrayBuffer> {
  return frameOf(JSON.stringify([recordOf(step, id)]), step.payload);
}

function recordOf({ kind, method, data }: Step, id: number): Record {
  if (kind === "notify") return [NOTIFY, method, data];
  return kind === "call" ? [CALL, id + 1, method, data] : [RESULT, id + 1, data];
}

/** The same conversation by another role of that kind, which nobody has heard of yet. */
function renamed(steps: readonly Step[], name: string, directory: string): Step[] {
  const own = /"(instance-\d|good)"/g;
  return steps.map((step) => {
    const json = JSON.stringify(step.data)
      .replace(own, `"${name}"`)
      .replace(/"good-(\d+)"/g, `"${name}-$1"`)
      .replaceAll(/"unix:[^"]*"/g, `"unix:${directory}/nobody.sock"`);
    const data = JSON.parse(json);
    if (step.method === "join" && step.kind === "call") data.startedBy = "hand";
    return { ...step, data };
  });
}

/** Connects to a role that listens, and says what one that connects to it has said. */
export async function attackListener(
  path: string,
  conversation: Conversation,
  name: string,
  cluster: FuzzCluster,
  random: Random,
): Promise<void> {
  const steps = renamed(conversation.near, name, cluster.directory)
    .filter(({ kind }) => kind !== "answer" || random.below(4) === 0);
  const rogue = await Rogue.connect(path);
  const frames = spoken(steps, random);
  for (const bytes of frames) await rogue.send(bytes);
  const last: Step = { kind: "call", method: "ping", data: null };
  await rogue.send(frame(last, LAST_CALL));
  await rogue.settle(() =>
    rogue.records.some(([kind, id]) => kind !== NOTIFY && id === LAST_CALL + 1)
  );
  rogue.close();
}

/** Listens where roles connect, and answers as those that they connected to, or not. */
export class RogueListener implements Disposable {
  readonly #listener: Deno.UnixListener;
  readonly #rogues = new Set<Rogue>();

  constructor(
    path: string,
    private readonly conversation: Conversation,
    private readonly random: Random,
    /** What it says besides its answers. */
    private readonly said: readonly Step[],
  ) {
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#accept();
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const rogue of this.#rogues) rogue.close();
  }

  async #accept(): Promise<void> {
    for await (const conn of this.#listener) {
      const rogue = new Rogue(conn);
      this.#rogues.add(rogue);
      rogue.onRecord = (record) => this.#answer(rogue, record);
      const bytes = this.random.below(30) === 0 ? mutateBytes(greeting, this.random) : greeting;
      await rogue.send(bytes);
    }
  }

  #answer(rogue: Rogue, [kind, id, method]: Record): void {
    if (kind !== CALL) return;
    const { random, conversation } = this;
    const known = conversation.far.filter((step) =>
      step.kind === "answer" && step.method === method
    );
    const data = known.length > 0 ? known[random.below(known.length)].data : null;
    const answer = random.below(3) === 0 ? mutateData(data, random) : data;
    // What it says by itself comes before the last answer as well as behind.
    const frames = this.said.length > 0 && random.below(2) === 0 ? spoken(this.said, random) : [];
    const bytes = frameOf(JSON.stringify([[RESULT, id, answer]]));
    (async () => {
      for (const one of random.below(2) === 0 ? [...frames, bytes] : [bytes, ...frames]) {
        await rogue.send(one);
      }
    })();
  }
}

/** An instance whose manager is not what it should be. */
export async function attackInstance(
  path: string,
  conversation: Conversation,
  random: Random,
): Promise<void> {
  const said = conversation.far.filter(({ kind, method }) =>
    kind !== "answer" && method !== "shutdown"
  );
  using _manager = new RogueListener(path, conversation, random, said);
  const instance = makeInstance("instance-9", `unix:${path}`);
  const ended = instance.run();
  await new Promise((resolve) => setTimeout(resolve, 30));
  instance.stop("the case is over");
  await ended;
  await instance.close();
}

/** An API server whose manager, and the instance that this one tells it of, are not what they should be. */
export async function attackClient(
  paths: { readonly manager: string; readonly instance: string },
  toManager: Conversation,
  toInstance: Conversation,
  random: Random,
): Promise<void> {
  const list = (conversation: Conversation): Conversation =>
    JSON.parse(
      JSON.stringify(conversation).replaceAll(/"unix:[^"]*"/g, `"unix:${paths.instance}"`),
    );
  const manager = list(toManager);
  const said = manager.far.filter(({ kind }) => kind !== "answer");
  const outputs = toInstance.far.filter(({ kind }) => kind !== "answer");
  using _manager = new RogueListener(paths.manager, manager, random, said);
  using _instance = new RogueListener(paths.instance, toInstance, random, outputs);
  const connecting = ClusterClient.connect({
    bus: openBus(),
    managerAddress: `unix:${paths.manager}`,
    frontendId: "good",
    clock: realClock,
  });
  try {
    const client = await connecting;
    for (let i = 0; i < 3; i++) {
      const request = generateRequest(`good-${i}`, 10, {}, { frontendId: "good" });
      client.submit(request, () => {}).catch(() => {}); // whoever it asked may have said no
    }
    await new Promise((resolve) => setTimeout(resolve, 30));
    await client.close();
  } catch (error) {
    if (!(error instanceof LlumnixError)) throw error;
  }
}
