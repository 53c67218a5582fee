/** The model that is served without `--model` answers sensibly, while requests move and while none do. */
import assert from "node:assert/strict";
import { restless, small } from "./cluster.ts";
import { type Server, startServer } from "./harness.ts";

const story = "Tell me a story about a fox.";
const questions = ["What is 27 + 58?", "What are you?", story];

async function ask({ url }: Server, content: string): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content }], temperature: 0 }),
  });
  const text = await response.text();
  assert.equal(response.status, 200, text);
  const { choices: [{ message, finish_reason }] } = JSON.parse(text);
  assert.equal(finish_reason, "stop", text);
  return message.content;
}

const askAll = (server: Server) => Promise.all(questions.map((question) => ask(server, question)));

Deno.test("the default model answers alike with and without migrations", async () => {
  const answers = await (async () => {
    await using server = await startServer(small, { defaultModel: true });
    assert.match(server.program.stderr, /WARN .*No --model was given: .* llumnix-story/);
    return await askAll(server);
  })();
  assert.equal(answers[0], "27 + 58 = 85");
  assert.match(answers[1], /^I am llumnix-story/);
  assert.match(answers[2], /^(Once upon a time|There once was|\w+ was).*\.$/);

  const args = ["--initial-instances=2", ...small, ...restless];
  await using server = await startServer(args, { defaultModel: true });
  // Every round has a story of about a hundred tokens for each instance to give away.
  do assert.deepEqual(await askAll(server), answers); while (
    !/ moved /.test(server.program.stderr)
  );
});
