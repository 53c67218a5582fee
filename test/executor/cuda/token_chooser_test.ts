/** Tokens that the device chooses are those of the host's sampler, and so are their log probabilities. */
import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { isLongRun } from "../../long.ts";
import { configure, counts } from "../../ffi/software_device/device.ts";
import { takeRaces } from "../../ffi/software_device/races.ts";
import { compareChoosers } from "./chooser_checks.ts";
import { cudaTest, settings } from "./support.ts";

cudaTest("the device chooses the host's tokens, with the same log probabilities", () => {
  configure(settings);
  const random = new Random(20261130), before = counts();
  const rounds = isLongRun ? 400 : 40;
  for (let round = 0; round < rounds; round++) {
    const vocabSize = round % 10 === 0 ? 1025 + random.below(1000) : 1 + random.below(200);
    compareChoosers(random, vocabSize);
  }
  compareChoosers(random, 8200); // 1024 threads
  assert.deepEqual(counts(), before);
});

cudaTest("the kernels of the choice have no race", () => {
  configure(`${settings},kernels=checked`);
  const random = new Random(7);
  for (const vocabSize of [90, 300]) compareChoosers(random, vocabSize);
  assert.deepEqual(takeRaces("checked"), []);
});
