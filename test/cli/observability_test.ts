import assert from "node:assert/strict";
import { load } from "js-yaml";
import { alerts, grafana } from "../../src/cli/observability.ts";

/** What a command prints. */
async function printed(run: () => Promise<number>): Promise<string> {
  const lines: string[] = [];
  const { log } = console;
  console.log = (line: string) => lines.push(line);
  try {
    assert.equal(await run(), 0);
  } finally {
    console.log = log;
  }
  return lines.join("\n");
}

Deno.test("grafana and alerts print JSON and YAML", async () => {
  assert.equal(JSON.parse(await printed(() => grafana.run([]))).uid, "llumnix");
  const rules = load(await printed(() => alerts.run([]))) as { groups: unknown[] };
  assert.equal(rules.groups.length, 1);
});

Deno.test("grafana writes a new file, and never over another", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/llumnix.json`;
    assert.match(await printed(() => grafana.run([path])), /llumnix\.json: import it in Grafana/);
    assert.equal(JSON.parse(await Deno.readTextFile(path)).title, "Llumnix");
    await assert.rejects(grafana.run([path]), /it exists; give another name, or remove it/);
    await assert.rejects(alerts.run([`${directory}/no/such`]), /cannot write .*no\/such/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("grafana and alerts refuse other words", async () => {
  await assert.rejects(grafana.run(["--help-me"]), /expected the name of a new file/);
  await assert.rejects(alerts.run(["a", "b"]), /llumnix alerts \[FILE\]/);
});
