import assert from "node:assert/strict";
import { join } from "node:path";
import { systemd } from "../../../src/cli/systemd/command.ts";

/** Runs the command in this process, and keeps what it prints. */
async function run(argv: string[], env: Record<string, string> = {}): Promise<string> {
  const { log, error } = console;
  const printed: string[] = [];
  const before = Object.keys(env).map((name) => [name, Deno.env.get(name)] as const);
  console.log = console.error = (text: string) => void printed.push(text);
  for (const [name, value] of Object.entries(env)) Deno.env.set(name, value);
  try {
    assert.equal(await systemd.run(argv), 0);
    return printed.join("\n");
  } finally {
    Object.assign(console, { log, error });
    for (const [name, value] of before) {
      if (value === undefined) Deno.env.delete(name);
      else Deno.env.set(name, value);
    }
  }
}

Deno.test("systemd: prints the unit of a command, by default of serve", async () => {
  const text = await run(["--", "manager", "--initial-instances", "3"]);
  assert.match(text, /^ExecStart=\/.* manager --initial-instances 3$/m);
  assert.match(await run(["--", "--initial-instances", "3"]), / serve --initial-instances 3$/m);
  assert.match(await run([]), / serve$/m);
  const instance = await run(["--", "instance", "--manager-address", "tcp:10.0.0.1:9000"]);
  assert.match(instance, /^ExecStart=.* instance --manager-address tcp:10\.0\.0\.1:9000$/m);
  const agent = await run(["--user", "--", "agent", "--cluster=etcd://x", "--cluster-key-file=/k"]);
  assert.match(agent, /^ExecStart=.* agent --cluster=etcd:\/\/x --cluster-key-file=\/k$/m);
});

Deno.test("systemd: refuses what would not start, or would be read by everybody", async () => {
  const cases: [argv: string[], message: RegExp][] = [
    [
      ["--", "bench"],
      /bench is no command for a service: expected serve, manager, api-server, agent, instance$/,
    ],
    [["--", "serve", "--prot", "1"], /unknown option --prot/],
    [["--", "instance", "--port", "1"], /unknown option --port/],
    [["--", "serve", "--api-key", "s"], /--api-key would be in the unit, .* set VLLM_API_KEY in/],
    [["--", "serve", "--admin-token=s"], /--admin-token would be .* set LLUMNIX_ADMIN_TOKEN/],
    [["--", "serve", "--model", "./m"], /^\.\/m: .* write the absolute path$/],
    [["--", "serve", "--config-file=~/c.yaml"], /^--config-file=~\/c\.yaml: .* absolute path$/],
    [
      ["--", "agent", "--cluster", "etcd://x", "--cluster-key-file", "/k"],
      /^--cluster-key-file: the service runs as a user of its own.* set LLUMNIX_CLUSTER_KEY in/,
    ],
    [["--", "serve", "--cluster-credentials", "/k"], /^--cluster-credentials: .* environment file/],
    [["--name", "a/b"], /--name a\/b: expected the name of a unit/],
    [["--name", "x.service"], /without "\.service"/],
    [["--watchdog", "-1"], /--watchdog/],
  ];
  for (const [argv, message] of cases) {
    await assert.rejects(systemd.run(argv), { kind: "usage", message }, argv.join(" "));
  }
});

Deno.test("systemd --user --write: unit and environment file, and no unit of somebody else", async () => {
  const home = Deno.makeTempDirSync();
  try {
    const env = { HOME: home, XDG_CONFIG_HOME: join(home, "config") };
    const said = await run(["--user", "--write", "--name", "mine"], env);
    const unit = join(home, "config/systemd/user/mine.service");
    const environment = join(home, "config/llumnix/mine.env");
    assert.match(said, new RegExp(`wrote ${unit}\n[^]*${environment}\n[^]*systemctl --user`));
    assert.equal(Deno.statSync(environment).mode! & 0o777, 0o600);
    Deno.writeTextFileSync(environment, "VLLM_API_KEY=k\n");
    await run(["--user", "--write", "--name", "mine", "--", "serve", "--port", "1"], env);
    assert.match(Deno.readTextFileSync(unit), /ExecStart=.* --port 1$/m);
    assert.equal(Deno.readTextFileSync(environment), "VLLM_API_KEY=k\n"); // it is the user's
    Deno.writeTextFileSync(unit, "[Service]\n");
    await assert.rejects(run(["--user", "--write", "--name", "mine"], env), {
      message: /mine\.service was not written by this command: remove it, or choose a --name$/,
    });
    assert.equal(Deno.readTextFileSync(unit), "[Service]\n");
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
});
