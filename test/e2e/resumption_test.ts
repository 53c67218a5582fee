/** Streams that outlive their API server: their clients go on at another one. Linux: processes are signalled. */
import assert from "node:assert/strict";
import { join } from "node:path";
import OpenAI from "openai";
import { type Cluster, restless } from "./cluster.ts";
import { User } from "./roles.ts";

const KEY = "mine";
const keys = ["--api-key", KEY, "--api-key", "other"];
const MAX_TOKENS = 300;
/** Events of all streams together until their API server is killed. */
const EVENTS_BEFORE_KILL = 400;

interface Asked {
  readonly path: string;
  readonly body: Readonly<Record<string, unknown>>;
}

const sampled = { max_tokens: MAX_TOKENS, ignore_eos: true };

const asked: readonly Asked[] = [
  { path: "/completions", body: { ...sampled, prompt: "greedy ".repeat(9), temperature: 0 } },
  { path: "/completions", body: { ...sampled, prompt: "seeded", temperature: 1, seed: 3 } },
  { path: "/completions", body: { ...sampled, prompt: "told", temperature: 0, logprobs: 2 } },
  {
    path: "/chat/completions",
    body: {
      ...sampled,
      messages: [{ role: "user", content: "chat" }],
      temperature: 1,
      seed: 4,
      stream_options: { include_usage: true },
    },
  },
];

/** Events of one stream, over all its connections. */
class ClientStream {
  /** The documents of the events. */
  // deno-lint-ignore no-explicit-any -- the test asserts their shape
  readonly chunks: any[] = [];
  lastEventId: string | null = null;
  isDone = false;
  isBroken = false;

  constructor(private readonly asked: Asked, private readonly onEvent: () => void = () => {}) {}

  get text(): string {
    return this.chunks.map(({ choices: [choice] }) => choice?.text ?? choice?.delta.content ?? "")
      .join("");
  }

  get logprobs(): unknown[] {
    return this.chunks.flatMap(({ choices: [choice] }) => choice?.logprobs?.token_logprobs ?? []);
  }

  get finishes(): unknown[] {
    return this.chunks.flatMap(({ choices: [choice] }) => choice?.finish_reason ?? []);
  }

  /** Reads the stream, or its rest, until it ends or breaks. */
  async read({ url }: Pick<Cluster, "url">, isResumable = true): Promise<void> {
    const { path, body } = this.asked;
    try {
      const response = await ask(url, path, {
        ...body,
        stream: true,
        ...(isResumable && { resumable: true }),
      }, this.lastEventId);
      if (!response.ok) assert.fail(`${response.status}: ${await response.text()}`);
      if (isResumable) this.lastEventId ??= response.headers.get("x-resume-id")!;
      let rest = "";
      for await (const text of response.body!.pipeThrough(new TextDecoderStream())) {
        const events = (rest + text).split("\n\n");
        rest = events.pop()!;
        for (const event of events) this.#take(event);
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      this.isBroken = true;
    }
  }

  #take(event: string): void {
    for (const line of event.split("\n")) {
      if (line.startsWith("id: ")) this.lastEventId = line.slice(4);
      else if (line === "data: [DONE]") this.isDone = true;
      else if (line.startsWith("data: ")) this.chunks.push(JSON.parse(line.slice(6)));
    }
    this.onEvent();
  }
}

function ask(
  url: string,
  path: string,
  body: unknown,
  lastEventId: string | null,
  key = KEY,
): Promise<Response> {
  return fetch(`${url}/v1${path}`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      authorization: `Bearer ${key}`,
      ...(lastEventId !== null && { "last-event-id": lastEventId }),
    },
    body: JSON.stringify(body),
  });
}

async function quietRun(cluster: Cluster, one: Asked): Promise<ClientStream> {
  const stream = new ClientStream(one);
  await stream.read(cluster, false);
  assert.ok(stream.isDone);
  return stream;
}

Deno.test("roles apart: an API server is killed, and its clients go on at another one", async () => {
  await using user = new User();
  // Requests move all the time, also those that were resumed.
  const manager = user.manager("--initial-instances", "2", ...restless);
  const first = await user.cluster(...keys, "--enable-migration");
  const second = await user.cluster(...keys, "--enable-migration", "--resume-hold", "0.5");
  const whole = await Promise.all(asked.map((one) => quietRun(second, one)));
  // One stream ends by a stop string that is in the second half of the text.
  const [{ text }] = whole;
  const stop = text.slice(Math.floor(text.length * 0.7)).slice(0, 6);
  const stopped: Asked = { ...asked[0], body: { ...asked[0].body, stop } };
  const all = [...asked, stopped];
  whole.push(await quietRun(second, stopped));

  await readByOpenAi(first, second, text);

  let numEvents = 0;
  const streams = all.map((one) =>
    new ClientStream(one, () => {
      if (++numEvents === EVENTS_BEFORE_KILL) first.program.signal("SIGKILL");
    })
  );
  await Promise.all(streams.map((stream) => stream.read(first)));
  assert.ok(streams.some(({ isBroken }) => isBroken), "the API server died too late");
  const { pid } = first.program;
  Deno.removeSync(join(user.directory, `llumnix/control-${pid}.sock`)); // killed, it could not do so itself

  // The id alone is not enough: neither another key nor another body resumes the stream.
  const broken = streams.find(({ isBroken, chunks }) => isBroken && chunks.length > 2)!;
  const { path, body } = all[streams.indexOf(broken)];
  const same = { ...body, stream: true, resumable: true };
  for (const [sent, key] of [[same, "other"], [{ ...same, top_k: 5 }, KEY]] as const) {
    const response = await ask(second.url, path, sent, broken.lastEventId, key);
    const { error } = await response.json();
    assert.deepEqual([response.status, error.code], [404, "stream_not_held"]);
  }

  await Promise.all(streams.map((stream) => stream.isDone ? null : stream.read(second)));
  for (const [i, stream] of streams.entries()) {
    const { prompt, messages } = all[i].body;
    const what = JSON.stringify(prompt ?? messages);
    assert.ok(stream.isDone, what);
    assert.equal(stream.text, whole[i].text, what);
    assert.deepEqual(stream.logprobs, whole[i].logprobs, what);
    assert.deepEqual(stream.finishes, whole[i].finishes, what);
    assert.deepEqual(stream.chunks.at(-1).usage, whole[i].chunks.at(-1).usage, what);
    // Chunks of both servers are those of one answer.
    assert.equal(new Set(stream.chunks.map(({ id, created }) => `${id} ${created}`)).size, 1);
  }

  // What was started at the second one is forgotten soon.
  const short = { prompt: "short", max_tokens: 4, stream: true, resumable: true };
  const answer = await ask(second.url, "/completions", short, null);
  await answer.text();
  const id = answer.headers.get("x-resume-id");
  await second.program.waitUntil("it was forgotten", async () => {
    const late = await ask(second.url, "/completions", short, id);
    const text = await late.text();
    if (late.status === 200) return false;
    assert.equal(late.status, 404);
    assert.match(text, /kept for 0\.5 s \(--resume-hold\)/);
    return true;
  });
  await second.program.stopWell();
  await manager.stopWell();
});

/** Reads a stream with OpenAI's client, which does not show the ids of events, and goes on with it elsewhere. */
async function readByOpenAi(first: Cluster, second: Cluster, quiet: string): Promise<void> {
  const clientOf = ({ url }: Cluster) =>
    new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 });
  const request = {
    ...asked[0].body as { prompt: string },
    model: "llumnix-tiny",
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
    resumable: true,
  } as const;
  const { data, response } = await clientOf(first).completions.create(request).withResponse();
  let text = "", position = 0;
  for await (const { choices: [choice], usage } of data) {
    text += choice.text;
    position = usage!.completion_tokens;
    if (position >= 20) break; // which closes the connection
  }
  const id = response.headers.get("x-resume-id");
  const headers = { "last-event-id": `${id}/${position}` };
  const rest = await clientOf(second).completions.create(request, { headers });
  for await (const { choices: [choice] } of rest) text += choice?.text ?? "";
  assert.equal(text, quiet);
}
