/** Worker of step_memory_test.ts: takes one step from the memory that it is sent, and says its id. */
import { StepMemory } from "../../src/executor/step_memory.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<SharedArrayBuffer>) => void;
  postMessage: (stepId: number | undefined) => void;
};
scope.onmessage = ({ data }) =>
  scope.postMessage(new StepMemory(data).nextRequest()?.input?.stepId);
