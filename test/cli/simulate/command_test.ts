/** `llumnix simulate` as a program. */
import assert from "node:assert/strict";

const entry = new URL("../../../mod.ts", import.meta.url).pathname;

const HIDE_CURSOR = "\x1b[?25l", SHOW_CURSOR = "\x1b[?25h";
/** Of the bar. Deno hides the cursor too, while it loads modules and nobody listens to signals yet. */
const BAR = "% run ";
const NO_WRAP = "\x1b[?7l", WRAP = "\x1b[?7h";

/** Runs a command on a terminal of its own. */
function hasScript(): boolean {
  try {
    const { stdout } = new Deno.Command("script", { args: ["--version"] }).outputSync();
    return new TextDecoder().decode(stdout).includes("util-linux");
  } catch {
    return false;
  }
}

async function run(args: readonly string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", entry, "simulate", ...args],
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test("simulate: a trace on two clusters, as a table, JSON and a report", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const trace = `${directory}/t.jsonl`,
      json = `${directory}/r.json`,
      html = `${directory}/r.html`,
      csv = `${directory}/r.csv`;
    const rows = Array.from({ length: 30 }, (_, i) => ({
      time: i / 10,
      prompt_tokens: 50 + i,
      output_tokens: 5,
      priority: i % 5 === 0 ? "high" : "normal",
    }));
    await Deno.writeTextFile(trace, rows.map((row) => JSON.stringify(row)).join("\n"));
    const files = ["--trace", trace, "--json", json, "--html", html, "--csv", csv];
    const options = ["--instances", "2", "--seeds", "2", "--compare", "rr: --dispatch-policy rr"];
    const { code, stdout, stderr } = await run([...files, ...options, "--requests", "40"]);
    assert.equal(code, 0, stderr);
    assert.match(
      stdout,
      /^.*t\.jsonl, 30 requests a run: the trace has no more, 40 were asked for$/m,
    );
    assert.match(stdout, /^TTFT P99 \(s\) +0\.\d+/m);
    assert.match(stdout, /^high: TTFT P99 \(s\)/m);
    assert.match(stdout, /llumnix vs rr/);
    assert.match(stdout, /times faster than real time/);
    assert.equal(stderr.trim().split("\n").length, 4, "a line per run where there is no terminal");
    assert.match(stdout, /^P99 time to first token of llumnix: .* than with rr|as with rr/m);
    const requests = (await Deno.readTextFile(csv)).trimEnd().split("\n");
    assert.equal(requests.length, 1 + 4 * 30);
    const { comparison, runs, command, version, date } = JSON.parse(await Deno.readTextFile(json));
    assert.match(command, /^llumnix simulate --trace .* --compare 'rr: --dispatch-policy rr'/);
    assert.match(`${version} ${date}`, /^\d+\.\d+\.\d+ \d{4}-\d\d-\d\dT[\d:]+Z$/);
    assert.deepEqual(comparison.seeds, [1, 2]);
    const [ours, theirs] = comparison.clusters;
    assert.deepEqual([ours.name, ours.options.dispatchPolicy], ["llumnix", "load"]);
    assert.deepEqual([theirs.name, theirs.options.dispatchPolicy], ["rr", "rr"]);
    assert.equal(runs.length, 4);
    for (const { requests, failed, outputTokens } of runs) {
      assert.deepEqual([requests, failed, outputTokens], [30, 0, 150]);
    }
    const report = await Deno.readTextFile(html);
    assert.match(report, /^<!doctype html>/);
    assert.match(report, />llumnix: --instances 2</);
    assert.match(report, />rr: --instances 2 --dispatch-policy rr</);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("simulate: - is stdout, which has nothing else then", async () => {
  const options = ["--rate", "5", "--requests", "3", "--seeds", "1"];
  const json = await run([...options, "--json", "-"]);
  assert.equal(json.code, 0, json.stderr);
  assert.equal(JSON.parse(json.stdout).runs[0].requests, 3);
  const html = await run([...options, "--html", "-"]);
  assert.match(html.stdout, />llumnix: all options at their defaults</);
  assert.match(html.stdout, /^<!doctype html>[^]*<\/html>\n$/);
});

Deno.test("simulate: Ctrl-C writes what has run", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const json = `${directory}/r.json`;
    const options = ["--rate", "5", "--requests", "30", "--seeds", "1000", "--json", json];
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", entry, "simulate", ...options],
      env: { NO_COLOR: "1" },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    let stderr = "", isStopped = false;
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      stderr += text;
      if (isStopped || !stderr.includes("run 3/1000")) continue;
      isStopped = true;
      child.kill("SIGINT");
    }
    const stdout = await new Response(child.stdout).text();
    assert.equal((await child.status).code, 130);
    assert.match(stderr, /stopped after \d+ of 1000 runs/);
    assert.match(stdout, /^TTFT P99 \(s\) /m);
    const { runs } = JSON.parse(await Deno.readTextFile(json));
    assert.ok(runs.length >= 2 && runs.length < 1000, `${runs.length} runs`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("simulate: a file that cannot be written is refused at once", async () => {
  const { code, stderr } = await run(["--rate", "5", "--html", "missing/directory/r.html"]);
  assert.equal(code, 2);
  assert.match(stderr, /error: cannot write missing\/directory\/r\.html/);
});

Deno.test("simulate: a run of which every request failed is an error, told by one line", async () => {
  const options = ["--rate", "5", "--requests", "3", "--seeds", "2", "--lengths", "fixed:90:5"];
  const compare = ["--compare", "small: --num-gpu-blocks-override 5"];
  const { code, stdout, stderr } = await run([...options, ...compare]);
  assert.equal(code, 1);
  assert.match(stdout, /^FIXED:90:5 5 req\/s, 3 requests a run$/m);
  assert.match(stderr, /^llumnix simulate: error: every request failed in 2 of 4 runs\n$/m);
  assert.match(stdout, /^failed requests +0 ± 0 +3.00 ± 0/m, "the other runs are shown");
});

Deno.test("simulate: what cannot be run leaves files as they were", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const old = `${directory}/old.json`, fresh = `${directory}/new.json`;
    await Deno.writeTextFile(old, "of yesterday");
    for (const json of [old, fresh]) {
      const { code } = await run([
        "--rate",
        "5",
        "--json",
        json,
        "--html",
        `${directory}/no/r.html`,
      ]);
      assert.equal(code, 2);
    }
    assert.equal(await Deno.readTextFile(old), "of yesterday");
    await assert.rejects(Deno.stat(fresh), Deno.errors.NotFound);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test({
  name: "simulate: Ctrl-C gives the terminal back as it was",
  ignore: !hasScript(),
  fn: async () => {
    const words = [Deno.execPath(), "run", "-A", "--no-check", entry, "simulate", "--rate", "30"];
    // `script` reads for 10 ms after its command has ended, and a busy machine may bring the last output later:
    // so the command ends when all of it has been read, up to the line with the code.
    const command = `echo $$; sh -c 'echo $$; exec ${
      words.join(" ")
    }'; echo code $?; exec sleep 600`;
    const child = new Deno.Command("script", {
      args: ["-qc", command, "/dev/null"],
      env: { NO_COLOR: "", TERM: "xterm" },
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    let output = "", isInterrupted = false, code: string | undefined;
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      output += text;
      const [, shell, simulation] = /^(\d+)\r\n(\d+)\r\n/.exec(output) ?? [];
      if (!isInterrupted && output.includes(BAR)) {
        isInterrupted = true;
        Deno.kill(Number(simulation), "SIGINT");
      }
      if (code !== undefined) continue;
      code = /code (\d+)\r\n/.exec(output)?.[1];
      if (code !== undefined) Deno.kill(Number(shell), "SIGKILL");
    }
    await child.status;
    const shown = JSON.stringify(output.slice(-2_000));
    assert.equal(code, "130", shown);
    assert.ok(output.lastIndexOf(SHOW_CURSOR) > output.lastIndexOf(HIDE_CURSOR), shown);
    assert.ok(output.lastIndexOf(WRAP) > output.lastIndexOf(NO_WRAP), shown);
  },
});

Deno.test("simulate: help explains the figures", async () => {
  const { stdout } = await run(["--help"]);
  for (const name of ["TTFT", "TPOT", "ITL", "Preemption loss", "Downtime", "Fragmentation"]) {
    assert.ok(stdout.replaceAll("\n", " ").includes(`${name} is `), name);
  }
});

Deno.test("simulate: help names presets and options", async () => {
  const { code, stdout } = await run(["--help"]);
  assert.equal(code, 0);
  for (const word of ["osdi24-serving", "--compare", "--dispatch-policy", "--gpu-type"]) {
    assert.ok(stdout.includes(word), word);
  }
  assert.doesNotMatch(stdout, /--enable-migration.*\n.*Not available yet/);
});
