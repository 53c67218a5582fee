import assert from "node:assert/strict";
import { InstanceInfoCsv, instanceInfoHeader } from "../../src/roles/instance_info_csv.ts";
import { idleInfo } from "../manager/support.ts";

const options = {
  loadMetric: "remaining_steps",
  priorityHeadroomBlocks: null,
  enableDefrag: false,
} as const;

const busy = idleInfo("instance-0", {
  timestampMs: 1_700_000_000_250,
  stepId: 7,
  totalBlocks: 100,
  usedBlocks: 25,
  freeBlocks: 75,
  watermarkBlocks: 1,
  runningRequests: 2,
  waitingRequests: 3,
  killedRequests: 1,
  firstWaitingBlocks: 2.5,
  waiting: [],
  prefillBlocks: 0,
  allWaitingBlocks: 6,
  firstWaitingMs: 1500,
  lastStepKind: "decode",
  lastStepBatchedTokens: 2,
  lastStepSequences: 2,
  lastStepContextTokens: 300,
  lastStepLatencyMs: 12.5,
  runningSequenceLengths: [100, 200],
  maxOutputTokens: 64,
});

Deno.test("instance info: the columns of Llumnix, in its order", () => {
  assert.equal(
    instanceInfoHeader,
    "timestamp,instance_id,step_id,gpu_cache_usage,num_available_gpu_blocks,instance_load," +
      "max_tot_tokens,num_running_requests,num_waiting_requests,num_killed_requests," +
      "inference_type,bs,profiling_data,seq_lens,num_instances,num_seqs," +
      "num_blocks_first_waiting_request,num_blocks_all_waiting_requests," +
      "waiting_time_first_waiting_request,instance_load_kind\n",
  );
});

Deno.test("instance info: a row as Python reads it", () => {
  const rows = new InstanceInfoCsv(options).rows([busy, idleInfo("instance-1")]);
  assert.equal(
    rows,
    "1700000000.25,instance-0,7,0.25,74,-37,64,2,3,1,decode,2,\"('decode', 2, 300, 12.5)\"," +
      '"[100, 200]",2,2,2.5,6,1.5,finite\n',
  );
});

Deno.test("instance info: rows while an instance is busy, and one when it has become empty", () => {
  const csv = new InstanceInfoCsv(options);
  const idle = idleInfo("instance-0");
  const numRows = (...infos: Parameters<InstanceInfoCsv["rows"]>[0]) =>
    csv.rows(infos).split("\n").length - 1;
  assert.equal(numRows(idle), 0);
  assert.equal(numRows(busy), 1);
  assert.equal(numRows(busy), 1, "also when nothing has changed");
  const empty = csv.rows([idle]);
  assert.match(empty, /^0,instance-0,0,0,99,,0,0,0,0,idle,0,"\('idle', 0, 0, 0\)",\[\],1,/);
  assert.match(empty, /,-inf\n$/, "an empty cell, so that a mean leaves it out");
  assert.equal(numRows(idle), 0);
  assert.equal(numRows(busy), 1);
  assert.equal(numRows(), 0, "it is gone");
  assert.equal(numRows(idle), 0);
});
