import assert from "node:assert/strict";
import { join } from "node:path";
import OpenAI from "openai";
import { freePort } from "../free_port.ts";
import { runProgram, type Server, startServer } from "./harness.ts";
import { eventData } from "./streams.ts";

const greedy = { prompt: "hello", max_tokens: 24, temperature: 0, ignore_eos: true };

interface Completion {
  readonly choices: readonly { readonly text: string; readonly finish_reason: string | null }[];
  readonly usage: { readonly completion_tokens: number };
}

function post(server: Server, path: string, body: unknown): Promise<Response> {
  return fetch(server.url + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

async function complete(server: Server, body: unknown): Promise<Completion> {
  const response = await post(server, "/v1/completions", body);
  const text = await response.text();
  assert.equal(response.status, 200, text);
  return JSON.parse(text);
}

/** Reads a streamed completion to its end, telling of each event. */
async function readStream(response: Response, onEvent = () => {}) {
  assert.equal(response.status, 200);
  let text = "", finishReason: string | null = null, last = "";
  for await (const event of eventData(response.body!)) {
    onEvent();
    last = event;
    if (event === "[DONE]") continue;
    const [choice] = (JSON.parse(event) as Completion).choices;
    text += choice?.text ?? "";
    finishReason = choice?.finish_reason ?? finishReason;
  }
  return { text, finishReason, last };
}

Deno.test("serve answers completions, chats and /generate, whole and streamed", async () => {
  await using server = await startServer();
  const models = await (await fetch(`${server.url}/v1/models`)).json();
  assert.equal(models.data.length, 1);

  const whole = await complete(server, greedy);
  assert.equal(whole.usage.completion_tokens, greedy.max_tokens);
  assert.equal(whole.choices[0].finish_reason, "length");
  const streamed = await readStream(
    await post(server, "/v1/completions", { ...greedy, stream: true }),
  );
  assert.deepEqual(streamed, {
    text: whole.choices[0].text,
    finishReason: "length",
    last: "[DONE]",
  });

  const chat = await post(server, "/v1/chat/completions", {
    messages: [{ role: "user", content: "hello" }],
    max_tokens: 4,
  });
  assert.equal(chat.status, 200, await chat.clone().text());
  assert.equal((await chat.json()).choices[0].message.role, "assistant");

  const generated = await (await post(server, "/generate", greedy)).json();
  assert.deepEqual(generated.text, [greedy.prompt + whole.choices[0].text]);

  const { code, signal } = await server.program.stop();
  assert.deepEqual([code, signal], [0, null]);
  assert.match(Deno.readTextFileSync(join(server.program.directory, "server.log")), / ready /);
});

Deno.test("two instances are processes of their own and answer alike", async () => {
  await using server = await startServer(["--initial-instances", "2"]);
  if (Deno.build.os === "linux") assert.equal(server.program.processes().length, 3);
  const answers = await Promise.all([1, 2, 3, 4].map(() => complete(server, greedy)));
  assert.equal(new Set(answers.map(({ choices }) => choices[0].text)).size, 1);
  await server.program.stopWell();
  for (const name of ["instance-0", "instance-1"]) {
    assert.match(server.program.stderr, new RegExp(`dispatched .* ${name}`));
  }
});

Deno.test("SIGTERM lets a running request finish, and takes no new one", async () => {
  await using server = await startServer();
  const body = { ...greedy, max_tokens: 400, stream: true };
  let signalled = false;
  const { finishReason, last } = await readStream(
    await post(server, "/v1/completions", body),
    () => {
      if (!signalled) server.program.signal("SIGTERM");
      signalled = true;
    },
  );
  assert.deepEqual([finishReason, last], ["length", "[DONE]"]);
  assert.equal((await server.program.end()).code, 0);
  await assert.rejects(fetch(server.url));
});

// A terminal that hangs up is in test/roles/hangup_test.ts.
Deno.test("without a terminal a hang-up opens the log file anew and stops nothing", async () => {
  await using server = await startServer([], { launcher: ["/usr/bin/env", "setsid"] });
  const log = join(server.program.directory, "server.log");
  assert.equal(Deno.statSync(log).mode! & 0o777, 0o600);
  Deno.renameSync(log, `${log}.old`);
  server.program.signal("SIGHUP");
  Deno.kill(pidOf(server, "instance-0"), "SIGHUP");
  await server.program.waitUntil("the log file was there", () => exists(log));
  await complete(server, greedy);
  assert.match(Deno.readTextFileSync(log), /received request .*promptChars=\d+/);
  assert.doesNotMatch(Deno.readTextFileSync(log), new RegExp(greedy.prompt));
  await server.program.stopWell();
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

Deno.test("under nohup a hang-up is ignored", async () => {
  const launcher = ["/bin/sh", "-c", 'trap "" HUP; exec "$0" "$@"'];
  await using server = await startServer([], { launcher });
  server.program.signal("SIGHUP");
  Deno.kill(pidOf(server, "instance-0"), "SIGHUP");
  await complete(server, greedy);
  await server.program.stopWell();
  assert.match(server.program.stderr, /stopping: SIGTERM/);
});

Deno.test("instances do not outlive a server that is killed", async () => {
  await using server = await startServer(["--initial-instances", "2"]);
  server.program.signal("SIGKILL");
  // The harness fails when one of them is still there some seconds later.
});

Deno.test("an unwritable HOME and an unwritable log file do not matter", async () => {
  await using server = await startServer(["--log-filename", "/dev/null/server.log"], {
    env: { HOME: "/dev/null/home" },
  });
  await complete(server, greedy);
  await server.program.stopWell();
  const warnings = server.program.stderr.match(/cannot write the log file/g);
  assert.equal(warnings?.length, 1);
});

Deno.test("a port in use is told in one message", async () => {
  const port = freePort();
  using _listener = Deno.listen({ hostname: "127.0.0.1", port });
  const { code, stderr } = await runProgram(["serve", "--host", "127.0.0.1", "--port", `${port}`]);
  assert.notEqual(code, 0);
  assert.match(stderr, new RegExp(`error: .*${port}`));
  assert.doesNotMatch(stderr, /starting instance/);
  assert.doesNotMatch(stderr, /^\s+at /m);
});

/** The pid of an instance as the log tells it. */
function pidOf(server: Server, instanceId: string): number {
  const match = server.program.stderr.match(new RegExp(`starting ${instanceId} pid=(\\d+)`));
  return Number(match![1]);
}

Deno.test("WASM kernels serve with helper threads", async () => {
  await using server = await startServer(["--cpu-kernels", "wasm", "--cpu-threads", "2"]);
  assert.match(server.program.stderr, /wasm, 2 threads/);
  const answer = await complete(server, greedy);
  assert.equal(answer.usage.completion_tokens, greedy.max_tokens);
  await server.program.stopWell();
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`${signal} that reaches the whole process group, and again by its launcher, drains once`, async () => {
    // The launcher is a group of its own, and passes the signal on as npx and deno task do.
    const script = `"$0" "$@" & child=$!; trap 'kill -${signal.slice(3)} $child' ${
      signal.slice(3)
    }; while kill -0 $child 2>/dev/null; do wait $child; code=$?; done; exit $code`;
    const launcher = ["setsid", "--wait", "/bin/bash", "-c", script];
    await using server = await startServer([], { launcher });
    const group = groupOf(pidOf(server, "instance-0"));
    const body = { ...greedy, max_tokens: 600, stream: true };
    let signalled = false;
    const { finishReason, last } = await readStream(
      await post(server, "/v1/completions", body),
      () => {
        if (!signalled) Deno.kill(-group, signal);
        signalled = true;
      },
    );
    assert.deepEqual([finishReason, last], ["length", "[DONE]"]);
    assert.equal((await server.program.end()).code, 0);
    assert.match(
      server.program.stderr,
      /waiting for running requests.* requests=1 atMostSeconds=30/,
    );
    assert.doesNotMatch(server.program.stderr, /second signal: stopping/);
  });
}

/** The process group of a process (proc_pid_stat(5)). */
function groupOf(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[2]);
}

Deno.test("a second signal does not wait for what runs", async () => {
  await using server = await startServer();
  const abandoned = readStream(
    await post(server, "/v1/completions", { ...greedy, max_tokens: 4000, stream: true }),
    () => {
      server.program.signal("SIGTERM");
    },
  ).catch(() => {});
  const { code } = await server.program.end();
  assert.equal(code, 130);
  await abandoned;
});

Deno.test("--disable-log-requests leaves no line of a request", async () => {
  await using server = await startServer(["--disable-log-requests"]);
  await complete(server, greedy);
  await server.program.stopWell();
  assert.doesNotMatch(server.program.stderr, /cmpl-|\/v1\/completions/);
});

Deno.test("instances write to the log file too", async () => {
  await using server = await startServer(["--log-filename", "all.log"]);
  await server.program.stopWell();
  assert.match(Deno.readTextFileSync(join(server.program.directory, "all.log")), / instance-0\//);
});

Deno.test("the openai client completes, chats and streams", async () => {
  await using server = await startServer();
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none" });
  const [{ id: model }] = (await client.models.list()).data;
  const { choices, usage } = await client.completions.create({ model, ...greedy, logprobs: 2 });
  assert.equal(usage?.completion_tokens, greedy.max_tokens);
  assert.equal(choices[0].logprobs?.tokens?.length, greedy.max_tokens);

  const chat = {
    model,
    messages: [{ role: "user", content: "hello" }],
    max_tokens: 8,
    seed: 3,
  } as const;
  const whole = await client.chat.completions.create({ ...chat, messages: [...chat.messages] });
  let streamed = "";
  const stream = await client.chat.completions.create({
    ...chat,
    messages: [...chat.messages],
    stream: true,
  });
  for await (const chunk of stream) streamed += chunk.choices[0]?.delta.content ?? "";
  assert.equal(streamed, whole.choices[0].message.content);
  await assert.rejects(
    client.completions.create({ model: "other", prompt: "x" }),
    /404.*llumnix-tiny/,
  );
});

Deno.test("the openai client gets n answers of seeds that follow each other, and restricted tokens", async () => {
  await using server = await startServer();
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none" });
  const asked = {
    model: "llumnix-tiny",
    messages: [
      { role: "user" as const, content: [{ type: "text" as const, text: "hi" }] },
      { role: "assistant" as const, content: null },
      { role: "user" as const, content: "more" },
    ],
    max_tokens: 12,
    temperature: 1,
  };
  const answers = async (seed: number, n: number) => {
    const { choices } = await client.chat.completions.create({ ...asked, seed, n });
    return choices.map(({ message }) => message.content);
  };
  const together = await answers(40, 3);
  assert.deepEqual(together, [
    ...await answers(40, 1),
    ...await answers(41, 1),
    ...await answers(42, 1),
  ]);
  const allowed = { allowed_token_ids: [65, 66, 67], bad_words: ["B"] } as object;
  const { choices: [{ message, logprobs }] } = await client.chat.completions.create({
    ...asked,
    ...allowed,
    logit_bias: { 67: 2 },
    logprobs: true,
    top_logprobs: 20,
  });
  assert.match(message.content!, /^[AC]{12}$/);
  assert.equal(logprobs?.content?.[0].top_logprobs.length, 20);
  const tools = [{ type: "function" as const, function: { name: "f" } }];
  await assert.rejects(
    client.chat.completions.create({ ...asked, tools }),
    /400.*tool calls are not supported/,
  );
  await client.chat.completions.create({ ...asked, tools, tool_choice: "none" });
});

Deno.test("--log-instance-info writes a row per poll while there is work", async () => {
  await using server = await startServer(["--initial-instances", "2", "--log-instance-info"]);
  const { directory } = server.program;
  const path = join(directory, "server.log_instance.csv");
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  const read = () => Deno.readTextFileSync(path);
  const [header] = read().split("\n");
  assert.match(header, /^timestamp,instance_id,step_id,gpu_cache_usage,.*,waiting_time_first_/);
  await complete(server, { ...greedy, max_tokens: 800 });
  await server.program.waitUntil(
    "the instance was empty",
    () => / ?,0,\d+,,0,0,0,0,/.test(read()),
  );
  const rows = read().trimEnd().split("\n").slice(1);
  assert.ok(rows.length >= 2, read());
  for (const row of rows.slice(0, -1)) {
    assert.match(row, /^\d+(\.\d+)?,instance-[01],\d+,.*,800,1,0,0,(idle|decode|prefill),\d+,"\('/);
  }
  // Polls may find the request before its first step.
  const sinceFirstStep = rows.slice(rows.findIndex((row) => !row.includes(",idle,")));
  assert.ok(!sinceFirstStep.some((row) => row.includes(",idle,")), read());
  assert.match(rows.at(-1)!, /,0,\d+,,0,0,0,0,decode,/);
});

Deno.test("a file of instance info that cannot be written ends the start", async () => {
  const args = ["serve", "--port", "0", "--log-instance-info", "--log-filename", "no/such/log"];
  const { code, stderr } = await runProgram(args);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /--log-instance-info: cannot write no\/such\/log_instance\.csv \(.*\); choose/,
  );
});

Deno.test("--log-request-timestamps tells the hops of each token, also of one that moved", async () => {
  const args = "--log-request-timestamps --enable-pd-disagg --num-dispatch-instances 1";
  const instances = ["--initial-instances", "2", "--migration-backend", "rayrpc"];
  await using server = await startServer([...args.split(" "), ...instances]);
  const response = await post(server, "/generate_benchmark", greedy);
  const { num_output_tokens_cf: numTokens, per_token_latency_breakdown_dict: hops } = await response
    .json();
  assert.equal(numTokens, greedy.max_tokens);
  assert.deepEqual(Object.keys(hops), [
    "step_latency_engine",
    "process_model_outputs_latency",
    "step_postprocess_latency",
    "across_async_put_queue_thread_latency",
    "across_async_put_queue_actor_latency",
    "queue_rpc_latency",
    "background_process_get_queue_latency",
    "generate_benchmark_return_output_latency",
  ]);
  for (const [name, latencies] of Object.entries(hops) as [string, number[]][]) {
    assert.equal(latencies.length, numTokens, name);
    // Clocks of two processes on one host differ by less.
    assert.ok(latencies.every((ms) => ms > -50 && ms < 60_000), `${name}: ${latencies}`);
  }
  assert.ok(hops.step_latency_engine.every((ms: number) => ms > 0));
});
