import assert from "node:assert/strict";
import { earlyAccesses, waitingKernels } from "../../scripts/cuda_kernel_waits.ts";

const sass = (early: string) => `
.text.first:
        /*0010*/                   LDG.E.CONSTANT R0, desc[UR4][R2.64] ;
        /*0020*/                   LDGSTS.E.BYPASS.LTC256B.128 [R7], desc[UR4][R10.64], !P0 ;
${early}
        /*0040*/                   ACQBULK ;
        /*0050*/                   PREEXIT ;
        /*0060*/                   LDG.E.STRONG.GPU R1, desc[UR4][R2.64] ;
        /*0070*/                   STG.E desc[UR4][R2.64], R1 ;
        /*0080*/                   EXIT ;
.text.plain:
        /*0010*/                   LDG.E R0, desc[UR4][R2.64] ;
        /*0080*/                   EXIT ;
`;

Deno.test("kernel waits: weights and tables may be loaded before the wait", () => {
  assert.deepEqual(earlyAccesses(sass("")), []);
  assert.deepEqual(waitingKernels(sass("")), ["first"]);
});

for (
  const instruction of [
    "LDG.E.128 R4",
    "LDG.E.STRONG.GPU R4",
    "STG.E desc[UR4][R2.64]",
    "ATOMG.E.ADD.STRONG.GPU PT",
    "RED.E.ADD",
  ]
) {
  Deno.test(`kernel waits: not ${instruction}`, () => {
    const found = earlyAccesses(sass(`        /*0030*/              @P0 ${instruction}, R5 ;`));
    assert.deepEqual(found, [{ kernel: "first", instruction: instruction.split(" ")[0] }]);
  });
}
