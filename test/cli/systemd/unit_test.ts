import assert from "node:assert/strict";
import { quoted, type UnitOptions, unitText } from "../../../src/cli/systemd/unit.ts";

const options: UnitOptions = {
  role: "serve",
  hasAgent: false,
  command: ["/usr/local/bin/llumnix", "serve", "--port", "8000"],
  user: false,
  name: "llumnix",
  watchdogSeconds: 60,
  needsLowPort: false,
};

/** The settings of a unit, with all values of each. */
function settingsOf(text: string): Map<string, string[]> {
  const settings = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    if (line.startsWith("#") || !line.includes("=")) continue;
    const at = line.indexOf("="), name = line.slice(0, at);
    settings.set(name, [...settings.get(name) ?? [], line.slice(at + 1)]);
  }
  return settings;
}

Deno.test("unit: words are quoted so that systemd gives them to the program as they are", () => {
  const cases: [word: string, text: string][] = [
    ["--port=8000", "--port=8000"],
    ["/srv/my model", '"/srv/my model"'],
    ["50%", "50%%"],
    ["$HOME", "$$HOME"],
    ['say "hi"', '"say \\"hi\\""'],
    ["a\\b", "a\\\\b"],
    ["it's", `"it's"`],
    ["", '""'],
    [";", '";"'],
    ["two\nlines", '"two\\nlines"'],
  ];
  for (const [word, text] of cases) assert.equal(quoted(word), text, word);
});

Deno.test("unit: a manager leaves its instances to the one after it; others end theirs in order", () => {
  const killModes = {
    ...{ serve: "mixed", "api-server": "mixed", manager: "process", instance: "mixed" },
  } as const;
  for (const [role, mode] of Object.entries(killModes)) {
    const settings = settingsOf(unitText({ ...options, role: role as UnitOptions["role"] }));
    assert.deepEqual(settings.get("KillMode"), [mode]);
    const keeps = role === "serve" ? undefined : ["yes"];
    assert.deepEqual(settings.get("RuntimeDirectoryPreserve"), keeps);
  }
});

Deno.test("unit: instances outlive an agent that crashes, and `serve --cluster` has one", () => {
  for (const role of ["agent", "serve"] as const) {
    const settings = settingsOf(unitText({ ...options, role, hasAgent: true }));
    assert.deepEqual(settings.get("KillMode"), ["process"]);
    assert.deepEqual(settings.get("Restart"), ["on-failure"]);
    assert.deepEqual(settings.get("ExecReload"), ["/bin/kill -s USR2 $MAINPID"]);
    // Where the next agent finds them.
    assert.deepEqual(settings.get("RuntimeDirectory"), ["llumnix"]);
    assert.deepEqual(settings.get("RuntimeDirectoryPreserve"), ["yes"]);
  }
});

Deno.test("unit: an instance has no successor, and starts again whatever ended it", () => {
  const settings = settingsOf(unitText({ ...options, role: "instance" }));
  assert.equal(settings.get("ExecReload"), undefined);
  assert.deepEqual(settings.get("Restart"), ["always"]);
  assert.deepEqual(settings.get("RuntimeDirectory"), ["llumnix"]); // that of its manager
  assert.deepEqual(settingsOf(unitText(options)).get("Restart"), ["on-failure"]);
});

Deno.test("unit: of a user, of another name, without a watchdog, for a low port", () => {
  const user = settingsOf(unitText({ ...options, user: true, watchdogSeconds: 0 }));
  for (const name of ["DynamicUser", "ProtectSystem", "DeviceAllow", "WatchdogSec"]) {
    assert.equal(user.get(name), undefined, name);
  }
  assert.deepEqual(user.get("WantedBy"), ["default.target"]);
  const host = settingsOf(unitText({ ...options, name: "second", needsLowPort: true }));
  assert.deepEqual(host.get("EnvironmentFile"), ["-%E/llumnix/second.env"]);
  assert.deepEqual(host.get("RuntimeDirectory"), ["second"]);
  assert.deepEqual(host.get("AmbientCapabilities"), ["CAP_NET_BIND_SERVICE"]);
  assert.deepEqual(host.get("CapabilityBoundingSet"), ["CAP_NET_BIND_SERVICE"]);
  assert.deepEqual(settingsOf(unitText(options)).get("CapabilityBoundingSet"), [""]);
  assert.ok(host.get("DeviceAllow")!.includes("char-nvidia* rw"));
});

const analyze = ["/usr/bin/systemd-analyze", "/bin/systemd-analyze"].find(isFile);

/** It reads files, and asks no systemd that runs. */
Deno.test({
  name: "unit: systemd-analyze verify finds no fault" + (analyze ? "" : " (needs systemd-analyze)"),
  ignore: analyze === undefined,
  async fn() {
    const directory = await Deno.makeTempDir();
    try {
      const roles = ["serve", "manager", "api-server", "instance", "agent"] as const;
      const withAgent = roles.map((role) => ({ role, hasAgent: role === "agent" }));
      withAgent.push({ role: "serve", hasAgent: true }); // serve --cluster
      for (const { role, hasAgent } of withAgent) {
        for (const user of [false, true]) {
          const path = `${directory}/llumnix-${role}.service`;
          const command = [Deno.execPath(), role];
          await Deno.writeTextFile(path, unitText({ ...options, role, hasAgent, user, command }));
          const { code, stderr } = await new Deno.Command(analyze!, {
            args: [...(user ? ["--user"] : []), "verify", "--man=no", path],
            env: { XDG_RUNTIME_DIR: directory },
          }).output();
          const complaints = new TextDecoder().decode(stderr).split("\n")
            .filter((line) => line.includes(path));
          assert.deepEqual([code, complaints], [0, []]);
        }
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
