export { expectedOutput, PagedModel } from "../../src/sim/paged_model.ts";
