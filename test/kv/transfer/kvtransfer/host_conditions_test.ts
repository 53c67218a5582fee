import assert from "node:assert/strict";
import {
  type HostConditions,
  hostConditions,
  kvTransferProblem,
} from "../../../../src/kv/transfer/kvtransfer/host_conditions.ts";

const good: HostConditions = {
  ...{ isLinux: true, hasProc: true, readProblem: null, ptraceScope: 0, mayTrace: false },
};

const cases: readonly [Partial<HostConditions>, host: RegExp | null, device: RegExp | null][] = [
  [{}, null, null],
  [{ ptraceScope: 1 }, null, null],
  [{ ptraceScope: 2 }, /ptrace_scope is 2.*SYS_PTRACE/, null],
  [{ ptraceScope: 2, mayTrace: true }, null, null],
  [{ ptraceScope: 3, mayTrace: true }, /ptrace_scope is 3.*rayrpc or gloo/, null],
  [{ readProblem: "not permitted" }, /not permitted.*seccomp/, null],
  [{ hasProc: false }, /\/proc cannot be read/, /\/proc cannot be read/],
  [{ isLinux: false }, /needs Linux/, /needs Linux/],
];

Deno.test("kvtransfer names what a host lacks, for each kind of pool", () => {
  for (const [lacking, host, device] of cases) {
    for (const [memory, expected] of [["host", host], ["device", device]] as const) {
      const problem = kvTransferProblem(memory, { ...good, ...lacking });
      const what = `${JSON.stringify(lacking)}, ${memory}: ${problem}`;
      if (expected === null) assert.equal(problem, null, what);
      else assert.match(problem ?? "", expected, what);
    }
  }
});

Deno.test({
  name: "the conditions of this host are read",
  ignore: Deno.build.os !== "linux",
  fn: () => {
    const { hasProc, readProblem, ptraceScope } = hostConditions();
    assert.deepEqual({ hasProc, readProblem }, { hasProc: true, readProblem: null });
    assert.ok(ptraceScope >= 0 && ptraceScope <= 3, String(ptraceScope));
  },
});
