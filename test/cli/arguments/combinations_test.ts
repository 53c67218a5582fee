import assert from "node:assert/strict";
import { checkCombinations } from "../../../src/cli/arguments/combinations.ts";
import { ArgumentIndex } from "../../../src/cli/arguments/index.ts";
import { serveGroups } from "../../../src/cli/arguments/tables.ts";
import { readSettings } from "../../../src/cli/settings.ts";

const index = new ArgumentIndex(serveGroups);

async function settings(argv: string) {
  return await readSettings(argv.split(" ").filter(Boolean), index);
}

function refuses(argv: string, message: string): void {
  Deno.test(`refused together: ${argv}`, async () => {
    const given = await settings(argv);
    assert.throws(() => checkCombinations(given), { name: "UsageError", message });
  });
}

function allows(argv: string): void {
  Deno.test(`fine together: ${argv}`, async () => checkCombinations(await settings(argv)));
}

const glooMessage = "When using gloo as migration backend, do not set " +
  "--disable-init-instance-by-manager and --disable-fixed-node-init-instance; with " +
  "--migration-backend rayrpc both can be set.";
refuses("--disable-init-instance-by-manager", glooMessage);
refuses("--disable-fixed-node-init-instance", glooMessage);
allows("--disable-fixed-node-init-instance --migration-backend nccl");

refuses(
  "--device cpu --profiling-result-file-path p.json",
  "--profiling-result-file-path p.json is for --device sim, and --device is cpu: leave one of " +
    "them out",
);
refuses(
  "--migration-crossover 1.5",
  "--migration-crossover 1.5: expected auto or a number of tokens, such as 512",
);
refuses("--speedup 2", "--speedup 2 is for --device sim: add that, or leave it out");
refuses(
  "--instance-isolation none",
  "--instance-isolation none is for --device sim and null, and --device is auto: a step of a " +
    "model would hold up the whole service",
);
allows("--device sim --speedup 2 --instance-isolation none");
allows("--profiling-result-file-path p.json --speedup 2");

refuses(
  "--migration-backend kvtransfer --migration-backend-transfer-type=",
  "When using kvTransfer as migration backend, do not set --migration-backend-transfer-type as " +
    "empty; choose cuda_ipc or rdma.",
);
allows("--migration-backend grpc --migration-backend-transfer-type=");
allows("--migration-backend kvtransfer --migration-backend-transfer-type=cuda_ipc");
refuses(
  "--migration-backend grpc --migration-backend-server-address 50051",
  "--migration-backend-server-address 50051: expected HOST:PORT, such as 127.0.0.1:50051 or " +
    "[::1]:50051; port 0 takes any free port",
);
allows("--migration-backend gloo --migration-backend-server-address 50051");
allows("--migration-backend grpc --migration-backend-server-address [::1]:0");

refuses(
  "--load-metric usage_ratio --migrate-out-threshold 3",
  "--migrate-out-threshold 3: with load metric usage_ratio it must be a fraction of the blocks, greater " +
    "than 0 and at most 1 (with remaining_steps it is a number of steps)",
);
refuses(
  "--load-metric usage_ratio --scale-down-threshold 0",
  "--scale-down-threshold 0: with load metric usage_ratio it must be a fraction of the blocks, greater " +
    "than 0 and at most 1 (with remaining_steps it is a number of steps)",
);
refuses(
  "--migrate-out-threshold=-3",
  "--migrate-out-threshold -3: with load metric remaining_steps it must be a number of steps " +
    "greater than 0 (an instance is over it if fewer steps remain)",
);
refuses(
  "--enable-scaling --scale-up-threshold 70",
  "--scale-up-threshold 70 and --scale-down-threshold 60 contradict each other: with load metric " +
    "remaining_steps an instance is added when fewer than 70 steps remain and removed when more " +
    "than 60 do, so that instances come and go all the time; --scale-down-threshold must be more " +
    "than --scale-up-threshold (defaults: 10 and 60)",
);
allows("--scale-up-threshold 70");
for (const metric of ["remaining_steps", "usage_ratio", "virtual_usage"]) {
  allows(`--enable-scaling --load-metric ${metric}`);
}
allows("--load-metric virtual_usage --migrate-out-threshold 300");
allows("--load-metric usage_ratio --scale-up-threshold 1");
allows("--migrate-out-threshold 300");

refuses(
  "--min-instances 3 --max-instances 2",
  "--min-instances 3 is more than --max-instances 2",
);
refuses(
  "--enable-scaling --initial-instances 5 --max-instances 4",
  "--initial-instances 5 is outside --min-instances 1 to --max-instances 4, between which " +
    "--enable-scaling keeps the service",
);
allows("--initial-instances 5 --max-instances 4");

refuses(
  "--enable-pd-disagg --num-dispatch-instances 1",
  "--enable-pd-disagg needs at least two instances, one for prefill and one for decode, but " +
    "--initial-instances is 1",
);
refuses(
  "--enable-pd-disagg --initial-instances 3",
  "--enable-pd-disagg needs --num-dispatch-instances N: the number of prefill instances, of 3 in all",
);
refuses(
  "--enable-pd-disagg --initial-instances 3 --num-dispatch-instances 3",
  "--num-dispatch-instances 3: with --enable-pd-disagg this is the number of prefill instances, and " +
    "it leaves none of 3 (--initial-instances) for decode; set it to at most 2",
);
allows("--enable-pd-disagg --initial-instances 3 --num-dispatch-instances 2");
allows("--initial-instances 3 --num-dispatch-instances 3");

refuses(
  "--ssl-keyfile k",
  "--ssl-keyfile needs --ssl-certfile: HTTPS takes a key and its certificate",
);
refuses(
  "--ssl-certfile c",
  "--ssl-certfile needs --ssl-keyfile: HTTPS takes a key and its certificate",
);
allows("--ssl-keyfile k --ssl-certfile c");

refuses(
  "--max-num-batched-tokens 512 --max-model-len 1024",
  "--max-num-batched-tokens 512 is less than --max-model-len 1024: longer prompts could never " +
    "run. Increase the one or decrease the other.",
);
refuses(
  "--max-num-batched-tokens 128",
  "--max-num-batched-tokens 128 is less than --max-num-seqs 256: every sequence of a step takes a " +
    "token at least. Increase the one or decrease the other.",
);
refuses(
  "--log-instance-info --log-filename=",
  "--log-instance-info writes to LOG_FILENAME_instance.csv, and --log-filename is empty",
);
allows("--log-instance-info");

allows("--max-num-batched-tokens 512 --max-model-len 512");
allows("");

refuses(
  "--root-path llm",
  "--root-path llm: expected a path that begins with a slash, such as /llm",
);
allows("--root-path /llm/");
