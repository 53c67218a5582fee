import assert from "node:assert/strict";
import { pairPolicyNotices } from "../../../src/cli/arguments/in_force.ts";
import { ArgumentIndex } from "../../../src/cli/arguments/index.ts";
import { checkStatus } from "../../../src/cli/arguments/status.ts";
import { serveGroups, type ServeOptions } from "../../../src/cli/arguments/tables.ts";
import { readSettings, toOptions } from "../../../src/cli/settings.ts";

const index = new ArgumentIndex(serveGroups);

async function messages(argv: string): Promise<string[]> {
  const settings = await readSettings(argv.split(" ").filter(Boolean), index);
  return checkStatus(index, settings).map(({ message }) => message);
}

function warns(argv: string, ...expected: string[]): void {
  const name = expected.length === 0 ? "in force" : "not in force";
  Deno.test(`${name}: ${argv}`, async () => assert.deepEqual(await messages(argv), expected));
}

const policies = "--pair-migration-policy defrag_constrained --request-migration-policy FIT";
warns("");
warns(`${policies} --enable-migration --enable-defrag 1`);
warns(
  policies,
  "--pair-migration-policy defrag_constrained and --request-migration-policy FIT have no effect " +
    "without --enable-migration",
);
warns("--priority-headroom-blocks 9 --load-metric virtual_usage");
warns(
  "--priority-headroom-blocks 9",
  "--priority-headroom-blocks 9 has no effect without --load-metric virtual_usage",
);
warns("--min-instances 1 --max-instances 4 --enable-scaling");
warns(
  "--min-instances 1 --max-instances 4",
  "--min-instances 1 and --max-instances 4 have no effect without --enable-scaling",
);
warns("--gpu-type h100 --device sim");
warns("--gpu-type h100", "--gpu-type h100 has no effect without --device sim");
warns(
  "--enforce-eager --max-seq-len-to-capture 100 --device cpu",
  "--enforce-eager and --max-seq-len-to-capture 100 have no effect: CUDA graphs are for GPUs, and " +
    "the device is cpu",
);
warns("--enforce-eager --max-seq-len-to-capture 100 --device cuda");
warns(
  "--code-revision main",
  "--code-revision main has no effect: code that comes with a model is never run",
);

// Settings of a backend that is not chosen.
warns(
  "--enable-migration --migration-backend-transfer-type= " +
    "--migration-backend-kvtransfer-naming-url file:/x --migration-backend-server-address h:1",
  '--migration-backend-transfer-type "" and --migration-backend-kvtransfer-naming-url file:/x ' +
    "have no effect without --migration-backend kvtransfer",
  "--migration-backend-server-address h:1 has no effect without --migration-backend grpc",
);
warns(
  "--migration-backend grpc --migration-backend-server-address h:1",
  "--migration-backend grpc and --migration-backend-server-address h:1 have no effect without " +
    "--enable-migration",
);

Deno.test("a pair policy that needs defragmentation is said not to be in force", async () => {
  const notices = async (...argv: string[]) =>
    pairPolicyNotices(toOptions<ServeOptions>(await readSettings(argv, index)));
  assert.deepEqual(await notices("--enable-migration"), [{
    severity: "info",
    message: "--pair-migration-policy defrag_constrained needs --enable-defrag; the policy in " +
      "force is balanced",
  }]);
  assert.deepEqual(await notices("--enable-migration", "--enable-defrag"), []);
  assert.deepEqual(await notices("--enable-migration", "--pair-migration-policy=balanced"), []);
});
