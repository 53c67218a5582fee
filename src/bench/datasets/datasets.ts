/** All datasets. */
import { burstgpt } from "./burstgpt.ts";
import { custom } from "./custom.ts";
import type { Dataset } from "./dataset.ts";
import { mooncake } from "./mooncake.ts";
import { random } from "./random.ts";
import { sharegpt } from "./sharegpt.ts";

/** By value of `--dataset-name`. */
export const datasets: Readonly<Record<string, Dataset>> = {
  random,
  sharegpt,
  burstgpt,
  custom,
  mooncake,
};
