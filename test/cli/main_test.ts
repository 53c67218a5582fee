import assert from "node:assert/strict";
import { main } from "../../src/cli/main.ts";
import { version } from "../../src/core/version.ts";

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command line in this process and keeps what it prints. */
async function run(...argv: string[]): Promise<Run> {
  const { log, error } = console;
  const stdout: string[] = [];
  const stderr: string[] = [];
  console.log = (text: string) => void stdout.push(text);
  console.error = (text: string) => void stderr.push(text);
  try {
    const code = await main(argv);
    return { code, stdout: stdout.join("\n"), stderr: stderr.join("\n") };
  } finally {
    Object.assign(console, { log, error });
  }
}

function refuses(argv: string[], stderr: string): void {
  Deno.test(`exit code 2: ${argv.join(" ")}`, async () => {
    assert.deepEqual(await run(...argv), { code: 2, stdout: "", stderr });
  });
}

refuses(
  ["srve"],
  "llumnix: error: unknown command srve; did you mean serve? (llumnix --help lists them)",
);
refuses(
  ["--model", "x"],
  "llumnix: error: expected a command before --model, such as: llumnix serve --model",
);
refuses(
  ["profile"],
  "llumnix profile: error: expected llumnix profile run or llumnix profile fit CSV, not nothing; " +
    "llumnix help profile lists the options of both",
);
refuses(
  ["serve", "--block-size", "7"],
  "llumnix serve: error: --block-size 7: expected one of 8, 16, 32",
);
refuses(
  ["serve", "--config-file", "/no/such.yml"],
  "llumnix serve: error: cannot read config file /no/such.yml: no such file or directory",
);
refuses(
  ["serve", "--enable-prefix-caching"],
  "llumnix serve: error: --enable-prefix-caching is not supported: Llumnix does not support " +
    "automatic prefix caching",
);
refuses(
  ["serve", "--drain-timeout", "-1"],
  "llumnix serve: error: --drain-timeout -1: expected a number from 0 to 86400",
);
refuses(
  ["serve", "--instance-timeout", "0"],
  "llumnix serve: error: --instance-timeout 0: expected a number greater than 0 and at most 86400",
);
refuses(
  ["serve", "--scaling-interval", "-3"],
  "llumnix serve: error: --scaling-interval -3: expected a number greater than 0",
);
refuses(
  ["serve", "--enable-scaling", "--initial-instances", "3", "--max-instances", "2"],
  "llumnix serve: error: --initial-instances 3 is outside --min-instances 1 to --max-instances 2, " +
    "between which --enable-scaling keeps the service",
);
refuses(
  ["serve", "--disable-init-instance-by-manager"],
  "llumnix serve: error: When using gloo as migration backend, do not set " +
    "--disable-init-instance-by-manager and --disable-fixed-node-init-instance; with " +
    "--migration-backend rayrpc both can be set.",
);
for (const name of ["manager", "api-server", "instance"]) {
  for (const address of ["nowhere", "inproc:x", "tcp:host", `unix:/${"x".repeat(200)}`]) {
    refuses(
      [name, "--manager-address", address],
      `llumnix ${name}: error: --manager-address ${address}: expected tcp:HOST:PORT, or ` +
        "unix:PATH with a path of at most 107 bytes",
    );
  }
}
refuses(
  ["manager", "--port", "1"],
  "llumnix manager: error: --port is an option of `llumnix serve`, `api-server`, `bench` and `demo`, " +
    "not of `llumnix manager`",
);
refuses(
  ["api-server", "--instance_timeout=3"],
  "llumnix api-server: error: --instance-timeout is an option of `llumnix serve` and `manager`, " +
    "not of `llumnix api-server`",
);
refuses(
  ["instance", "--initial-instances", "2"],
  "llumnix instance: error: --initial-instances is an option of `llumnix serve`, `manager`, " +
    "`api-server` and `simulate`, not of `llumnix instance`",
);
refuses(
  ["serve", "--instance-id", "mine"],
  "llumnix serve: error: --instance-id is an option of `llumnix instance`, not of `llumnix serve`",
);
refuses(
  ["instance", "--instance-idd", "mine"],
  "llumnix instance: error: unknown option --instance-idd; did you mean --instance-id?",
);
refuses(["help", "serve", "more"], "llumnix help: error: unexpected argument: more");

Deno.test("--version", async () => {
  assert.deepEqual(await run("--version"), {
    code: 0,
    stdout: `llumnix ${version} (from source)`,
    stderr: "",
  });
});

Deno.test("--help lists the commands", async () => {
  for (const argv of [[], ["-h"], ["--help"], ["help"]]) {
    const { code, stdout, stderr } = await run(...argv);
    assert.equal(code, 0);
    assert.equal(stderr, "");
    assert.match(stdout, /^usage: llumnix /);
    for (const name of ["serve", "instance", "bench", "simulate", "profile", "doctor", "help"]) {
      assert.match(stdout, new RegExp(`^  ${name} +[A-Z].*\\.`, "m"));
    }
  }
});

Deno.test("help of a command, in each of its ways, and in spite of bad arguments", async () => {
  const ways = [["serve", "--help"], ["serve", "-h"], ["help", "serve"], ["serve", "--x", "-h"]];
  for (const argv of ways) {
    const { code, stdout } = await run(...argv);
    assert.equal(code, 0);
    assert.match(stdout, /^[A-Z].*\.\n\nusage: llumnix serve \[options\]\n\n/);
  }
  assert.match((await run("instance", "--help")).stdout, /^ {2}--host-share HOST_SHARE$/m);
  assert.match((await run("help", "profile")).stdout, /^ {2}--repeats REPEATS/m);
});

refuses(
  ["serve", "--print-config", "--enable-lora"],
  "llumnix serve: error: --enable-lora is not supported: Llumnix does not support multi-LoRA serving",
);
refuses(
  ["serve", "--print-config", "--ssl-keyfile", "k"],
  "llumnix serve: error: --ssl-keyfile needs --ssl-certfile: HTTPS takes a key and its certificate",
);
refuses(
  ["serve", "--print-config", "--admin-token", "two words"],
  "llumnix serve: error: --admin-token must be one or more visible ASCII characters: it is sent " +
    "in a header",
);

Deno.test("--print-config shows what is in force, and where it comes from", async () => {
  const { code, stdout, stderr } = await run(
    ...["serve", "--print-config", "--enable-pd-disagg", "--initial-instances=2"],
    ...["--num-dispatch-instances=1", "--disable-log-requests", "--admin-token", "hush"],
    ...["--load-metric", "usage_ratio"],
  );
  assert.equal(code, 0);
  assert.equal(stderr, "");
  const rows = stdout.split("\n").map((line) => line.split(/  +/));
  const row = (name: string) => rows.find((columns) => columns[0] === name)!.slice(1);
  assert.deepEqual(row("--enable-migration"), ["true", "implied by --enable-pd-disagg true"]);
  assert.deepEqual(row("--pair-migration-policy"), [
    "balanced",
    "implied by --enable-defrag false",
  ]);
  assert.deepEqual(row("--migrate-out-threshold"), [
    "0.85",
    "implied by --load-metric usage_ratio",
  ]);
  const silence = ["true", "implied by --disable-log-requests true"];
  assert.deepEqual(row("--disable-log-requests-server"), silence);
  assert.deepEqual(row("--disable-log-requests-manager"), silence);
  assert.deepEqual(row("--admin-token"), ["set (not shown)", "command line"]);
  assert.deepEqual(row("--block-size"), ["16", "default"]);
  assert.ok(!stdout.includes("hush"));
});

Deno.test("--print-config says that a secret is set by the environment", async () => {
  Deno.env.set("LLUMNIX_ADMIN_TOKEN", "hush");
  try {
    const { stdout } = await run("serve", "--print-config");
    assert.match(stdout, /^--admin-token +set \(not shown\) +environment: LLUMNIX_ADMIN_TOKEN$/m);
    assert.ok(!stdout.includes("hush"));
  } finally {
    Deno.env.delete("LLUMNIX_ADMIN_TOKEN");
  }
});

Deno.test("a bad argument ends the process with one line and no stack", async () => {
  const entry = new URL("../../mod.ts", import.meta.url).pathname;
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", entry, "serve", "--prot", "1"],
    env: { NO_COLOR: "1" },
  });
  const { code, stdout, stderr } = await command.output();
  assert.equal(code, 2);
  assert.equal(new TextDecoder().decode(stdout), "");
  assert.equal(
    new TextDecoder().decode(stderr).replace(/^Check .*\n/gm, ""),
    "llumnix serve: error: unknown option --prot; did you mean --port?\n",
  );
});

Deno.test("help of a command without arguments of its own", async () => {
  const { code, stdout, stderr } = await run("keygen", "--help");
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(stdout, /^usage: llumnix keygen/);
});
