import assert from "node:assert/strict";
import { earlyAccesses, waitingKernels } from "../../scripts/cuda_kernel_waits.ts";

/** As nvdisasm writes it: an early end for blocks without work, a loop that fills a ring, then the wait. */
const sass = ({ early = "", late = "", otherEnd = "ACQBULK ;" } = {}) => `
.text.first:
        /*0000*/                   LDG.E.CONSTANT R0, desc[UR4][R2.64] ;
        /*0010*/               @P0 BRA \`(.L_x_2) ;
.L_x_0:
        /*0020*/                   LDGSTS.E.BYPASS.LTC256B.128 [R7], desc[UR4][R10.64], !P0 ;
        /*0030*/                   CALL.REL.NOINC \`($__internal_0_$rcp) ;
${early}
        /*0050*/              @!P0 BRA \`(.L_x_0) ;
        /*0060*/                   ACQBULK ;
        /*0070*/                   PREEXIT ;
        /*0080*/                   LDG.E.STRONG.GPU R1, desc[UR4][R2.64] ;
        /*0090*/                   STG.E desc[UR4][R2.64], R1 ;
        /*00a0*/                   EXIT ;
.L_x_2:
        /*00b0*/                   ${otherEnd}
        /*00c0*/                   PREEXIT ;
        /*00d0*/                   EXIT ;
$__internal_0_$rcp:
        /*00e0*/                   MUFU.RCP R1, R2 ;
${late}
        /*0100*/                   RET.REL.NODEC R24 \`(first) ;
.L_x_3:
        /*0110*/                   BRA \`(.L_x_3);
.text.plain:
        /*0010*/                   LDG.E R0, desc[UR4][R2.64] ;
        /*0080*/                   EXIT ;
`;

Deno.test("kernel waits: weights and tables may be loaded before the wait", () => {
  assert.deepEqual(earlyAccesses(sass()), []);
  assert.deepEqual(waitingKernels(sass()), ["first"]);
});

for (
  const instruction of [
    "LDG.E.128 R4",
    "LDG.E.STRONG.GPU R4",
    "STG.E desc[UR4][R2.64]",
    "ATOMG.E.ADD.STRONG.GPU PT",
    "RED.E.ADD",
    "PREEXIT ",
    "EXIT ",
  ]
) {
  const expected = [{ kernel: "first", instruction: instruction.split(" ")[0] }];
  Deno.test(`kernel waits: not ${instruction}`, () => {
    const line = `        /*0040*/              @!P1 ${instruction}, R5 ;`;
    assert.deepEqual(earlyAccesses(sass({ early: line })), expected);
    assert.deepEqual(earlyAccesses(sass({ late: line })), expected, "in a function behind the end");
  });
}

Deno.test("kernel waits: each way to an end has a wait of its own", () => {
  assert.deepEqual(earlyAccesses(sass({ otherEnd: "NOP ;" })), [
    { kernel: "first", instruction: "PREEXIT" },
    { kernel: "first", instruction: "EXIT" },
  ]);
});

Deno.test("kernel waits: what comes before the wait only in the text, but behind it in time", () => {
  const load = "        /*0040*/                   LDG.E R4, desc[UR4][R2.64] ;";
  const jumpedOver = "        /*0038*/                   BRA `(.L_x_1) ;\n" + load + "\n.L_x_1:";
  assert.deepEqual(earlyAccesses(sass({ early: jumpedOver })), []);
});

Deno.test("kernel waits: a jump that cannot be followed is an error", () => {
  for (const jump of ["BRX R4", "BRA `(.L_y)"]) {
    assert.throws(
      () => earlyAccesses(sass({ early: `        /*0040*/                   ${jump} ;` })),
      /^Error: first: (a jump that this check cannot follow|no label)/,
    );
  }
});
