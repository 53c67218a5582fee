/**
 * Fits a profile from the committed log of a real service, and simulates what the service was then
 * measured with: `scripts/profile_loop.ts` made the files, src/sim/README.md shows the table.
 */
import assert from "node:assert/strict";
import { main } from "../../../src/cli/main.ts";

const fixtures = new URL("../../fixtures/profile_loop/", import.meta.url).pathname;
const workloads = ["chat", "long_prompts", "bursts", "long_answers", "mixed"];

interface Simulated {
  readonly runs: [{ all: Record<"ttftMs" | "tpotMs" | "e2eMs", { readonly p50: number }> }];
}

async function llumnix(...argv: string[]): Promise<void> {
  const { log, error } = console;
  const said: string[] = [];
  console.log = console.error = (text: string) => void said.push(text);
  try {
    assert.equal(await main(argv), 0, said.join("\n"));
  } finally {
    Object.assign(console, { log, error });
  }
}

/** Services that were measured: what `profile fit` is told of each, and the largest error that was found, rounded up. */
const services = [
  { name: "sim", model: "llama-7b", fit: ["--model", "llama-7b"], limit: 0.1 },
  {
    name: "cpu",
    model: "loop",
    fit: ["--model", `${fixtures}cpu`, "--name", "loop", "--max-piece-tokens", "512"],
    limit: 0.13,
  },
];

for (const { name: service, model, fit, limit } of services) {
  const title = `medians of TTFT, TPOT and end-to-end latency are predicted within ${
    100 * limit
  }%: ${service}`;
  Deno.test(title, async () => {
    const from = `${fixtures}${service}/`;
    const directory = await Deno.makeTempDir();
    try {
      const profile = `${directory}/profile.json`, out = `${directory}/out.json`;
      const requests = ["--requests", `${from}alone.csv`];
      await llumnix(
        ...["profile", "fit", `${from}fit_instance.csv`, ...requests, ...fit, "--out", profile],
      );
      for (const name of workloads) {
        await llumnix(
          ...["simulate", "--trace", `${from}${name}.jsonl`, "--instances", "1", "--seeds", "1"],
          ...["--model", model, "--profiling-result-file-path", profile, "--json", out],
        );
        const { runs: [{ all }] } = JSON.parse(await Deno.readTextFile(out)) as Simulated;
        const real = JSON.parse(await Deno.readTextFile(`${from}${name}.json`));
        for (
          const [what, simulated, measured] of [
            ["TTFT", all.ttftMs.p50, real.median_ttft_ms],
            ["TPOT", all.tpotMs.p50, real.median_tpot_ms],
            ["end-to-end", all.e2eMs.p50, real.median_e2el_ms],
          ] as const
        ) {
          const error = simulated / measured - 1;
          assert.ok(
            Math.abs(error) < limit,
            `${name}: ${what} ${simulated}, measured ${measured}`,
          );
        }
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}
