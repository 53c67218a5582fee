/** Cost of the text of `/metrics`, with 16 instances: `deno bench test/metrics`. */
import { realClock } from "../../src/core/clock.ts";
import { clusterFamilies } from "../../src/metrics/cluster_families.ts";
import { processFamilies } from "../../src/metrics/process_families.ts";
import { requestFamilies } from "../../src/metrics/request_families.ts";
import { RequestMeter } from "../../src/metrics/request_meter.ts";
import { textOf } from "../../src/metrics/text_format.ts";
import { clusterState, instanceLoad } from "./cluster_state.ts";

const meter = new RequestMeter(realClock);
const state = clusterState(Array.from({ length: 16 }, (_, i) => instanceLoad(`instance-${i}`)));

const collect = () => [
  ...requestFamilies(meter, "model"),
  ...clusterFamilies(state, "model"),
  ...processFamilies("server", "1"),
];
const families = collect();

Deno.bench("collect the metrics of 16 instances", () => void collect());
Deno.bench("write their text", () => void textOf(families));
