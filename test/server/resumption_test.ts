/** Streams that ask to be resumable: their ids, and who may resume them. */
import assert from "node:assert/strict";
import { LlumnixError } from "../../src/core/errors.ts";
import type { TextRequest } from "../../src/frontend/service.ts";
import { speak } from "./fake_text_service.ts";
import { type Harness, withServer } from "./harness.ts";

const body = { prompt: "hi", max_tokens: 16, stream: true, resumable: true };
const chat = {
  messages: [{ role: "user", content: "hi" }],
  stream: true,
  resumable: true,
  stream_options: { include_usage: true },
};

interface ServerEvent {
  readonly data: string;
  readonly id?: string;
}

function eventsOf(text: string): ServerEvent[] {
  return text.split("\n\n").filter(Boolean).map((event) => {
    const fields = event.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2));
    return Object.fromEntries(fields);
  });
}

/** A service whose requests can be resumed: it repeats the tokens that the client has, as the real one does. */
function makeResumable({ service }: Harness, pieces: readonly string[]): TextRequest[] {
  const started = new Set<string>();
  service.admit = ({ requestId, resumeAfter }) => {
    if (resumeAfter === undefined) started.add(requestId);
    else if (!started.has(requestId)) throw new LlumnixError("not_found", "it is not held");
  };
  service.generate = (request, emit) => {
    let position = 0;
    const { resumeAfter = 0 } = request;
    speak(pieces)(request, (output) => {
      position += output.tokenIds.length;
      const isFinishKnown = position + 1 <= resumeAfter;
      if (position > resumeAfter || output.finish && !isFinishKnown) return emit(output);
      emit({ ...output, text: "", isRepeated: true });
    });
  };
  return service.requests;
}

const pieces = ["Hel", "lo", ", ", "world"];

Deno.test("a resumable stream names each of its events by its tokens", () =>
  withServer({}, async (harness) => {
    makeResumable(harness, pieces);
    const { text, headers } = await harness.post("/v1/completions", body);
    const id = headers.get("x-resume-id")!;
    assert.match(id, /^[0-9a-z]+\.[\w-]{32}$/);
    assert.deepEqual(eventsOf(text).map((event) => event.id), [
      ...[`${id}/1`, `${id}/2`, `${id}/3`, `${id}/5`],
      undefined,
    ]);
    const chunks = eventsOf(text).slice(0, -1).map(({ data }) => JSON.parse(data));
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    assert.ok(
      !chunks[0].id.includes(id),
      "the id of a request is shown to others, that of a stream is not",
    );
  }));

Deno.test("an ordinary stream has no ids, and no header", () =>
  withServer({}, async ({ post }) => {
    const { text, headers } = await post("/v1/completions", { ...body, resumable: false });
    assert.equal(headers.get("x-resume-id"), null);
    assert.ok(!/^id:/m.test(text));
  }));

for (const [path, sent] of [["/v1/completions", body], ["/v1/chat/completions", chat]] as const) {
  Deno.test(`${path}: the rest of a resumed stream is what is behind its Last-Event-ID`, () =>
    withServer({}, async (harness) => {
      const requests = makeResumable(harness, pieces);
      const { text, headers } = await harness.post(path, sent);
      const events = eventsOf(text);
      for (const [index, { id }] of events.entries()) {
        if (id === undefined) continue;
        const resumed = await harness.post(path, sent, { "last-event-id": id });
        assert.equal(resumed.status, 200, resumed.text);
        // The same bytes: ids, time and usage too.
        assert.deepEqual(eventsOf(resumed.text), events.slice(index + 1));
        assert.equal(resumed.headers.get("x-resume-id"), headers.get("x-resume-id"));
        assert.equal(requests.at(-1)!.requestId, requests[0].requestId);
        assert.equal(requests.at(-1)!.holdMs, 60_000);
      }
      const streamId = headers.get("x-resume-id")!;
      const again = await harness.post(path, sent, { "last-event-id": streamId });
      assert.deepEqual(eventsOf(again.text), events, "no event had come: all of them do");
    }));
}

Deno.test("a stream is resumed only with its own API key, body and path, and its whole id", () =>
  withServer({ apiKeys: ["mine", "other"] }, async (harness) => {
    makeResumable(harness, pieces);
    const mine = { authorization: "Bearer mine" };
    const { text } = await harness.post("/v1/completions", body, mine);
    const id = eventsOf(text)[0].id!;
    const resume = (sent: unknown, headers: Record<string, string>) =>
      harness.post("/v1/completions", sent, { ...mine, "last-event-id": id, ...headers });
    assert.equal((await resume(body, {})).status, 200);
    const guessed = id.replace(/.\//, (end) => (end[0] === "A" ? "B/" : "A/"));
    const refused = [
      await resume(body, { authorization: "Bearer other" }),
      await resume({ ...body, prompt: "ho" }, {}),
      await resume(body, { "last-event-id": guessed }),
      await resume(body, { "last-event-id": id.replace(/^./, "0") }),
    ];
    for (const { status, json } of refused) {
      assert.deepEqual([status, json.error.code], [404, "stream_not_held"]);
      assert.match(
        json.error.message,
        /kept for 60 s \(--resume-hold\).*again without Last-Event-ID/,
      );
    }
    assert.equal((await resume(body, { authorization: "Bearer none" })).status, 401);
  }));

Deno.test("what cannot be resumed is refused, with what to do", () =>
  withServer({}, async ({ post }) => {
    const cases: [unknown, Record<string, string>, RegExp][] = [
      [{ ...body, stream: false }, {}, /resumable needs "stream": true/],
      [{ ...body, n: 2 }, {}, /resumable takes one prompt and "n": 1, got 2 sequences/],
      [{ ...body, prompt: ["a", "b"] }, {}, /got 2 sequences/],
      [{ ...body, resumable: "yes" }, {}, /resumable must be true or false/],
      [body, { "last-event-id": "7" }, /Last-Event-ID is not an id of this server's events/],
      [body, { "last-event-id": `${"a".repeat(8)}.${"b".repeat(32)}/-1` }, /is not an id/],
    ];
    for (const [sent, headers, message] of cases) {
      const { status, json } = await post("/v1/completions", sent, headers);
      assert.equal(status, 400);
      assert.match(json.error.message, message);
    }
    // Other clients may send the header to any server.
    const plain = await post("/v1/completions", { ...body, resumable: false }, {
      "last-event-id": "7",
    });
    assert.equal(plain.status, 200);
  }));

Deno.test("--resume-hold 0 refuses resumable streams", () =>
  withServer({ options: { resumeHold: 0 } }, async ({ post }) => {
    const { status, json } = await post("/v1/completions", body);
    assert.equal(status, 400);
    assert.match(json.error.message, /started with --resume-hold 0/);
  }));
