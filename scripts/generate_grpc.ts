/**
 * Generates `src/kv/transfer/grpc/migration_pb.ts` from `migration.proto` beside it. The first line of the
 * result has the hash of the .proto file. A test fails if the file has changed and this was not run.
 */
import { shortHash } from "./bundle/inputs.ts";
import { refuseUnknownArguments } from "./known_arguments.ts";

/** Generator and compiler; the runtime in deno.json has the same version as the generator. */
const packages = ["npm:@bufbuild/protoc-gen-es@2.17.0", "npm:@bufbuild/buf@1.75.0"];
const directory = new URL("../src/kv/transfer/grpc/", import.meta.url).pathname;

async function run(command: string, args: string[], cwd: string): Promise<void> {
  const { success } = await new Deno.Command(command, { args, cwd }).spawn().status;
  if (!success) throw new Error(`${command} ${args.join(" ")} failed, see above`);
}

const scratch = await Deno.makeTempDir();
refuseUnknownArguments();
try {
  await Deno.writeTextFile(`${scratch}/package.json`, "{}");
  await Deno.copyFile(`${directory}/migration.proto`, `${scratch}/migration.proto`);
  await run(Deno.execPath(), ["add", "--quiet", ...packages], scratch);
  const plugin = { local: ["node_modules/.bin/protoc-gen-es"], out: ".", opt: ["target=ts"] };
  const template = JSON.stringify({ version: "v2", plugins: [plugin] });
  await run("node_modules/.bin/buf", ["generate", "--template", template], scratch);
  const proto = await Deno.readFile(`${directory}/migration.proto`);
  const code = await Deno.readTextFile(`${scratch}/migration_pb.ts`);
  const head = `// migration.proto ${await shortHash(proto)}, by scripts/generate_grpc.ts\n` +
    "// deno-lint-ignore-file\n";
  await Deno.writeTextFile(`${directory}/migration_pb.ts`, head + code);
} finally {
  await Deno.remove(scratch, { recursive: true });
}
await run(Deno.execPath(), ["fmt", "--quiet", `${directory}/migration_pb.ts`], directory);
