export { expectedOutput, PagedModel } from "../../src/sim/fuzz/paged_model.ts";
