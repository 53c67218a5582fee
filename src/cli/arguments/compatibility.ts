/** Arguments of Llumnix's and vLLM's servers that have no effect here, so that old command lines run. */
import { accepted, type ArgumentTable, choice, flag, integer, text } from "./argument.ts";

export const noRay = accepted("there is no Ray here; serve starts its instances as processes");
const oneLogLevel = accepted("--log-level is the level of all logs");

export const compatibilityArguments = {
  "launch-ray-cluster": flag({ status: noRay, help: "Start a Ray cluster." }),
  "ray-cluster-port": integer({ default: null, status: noRay, help: "Port of the Ray cluster." }),
  "request-output-queue-type": choice({
    choices: ["rayqueue", "zmq"],
    default: null,
    status: noRay,
    help: "Kind of the queue that carries tokens to the server.",
  }),
  "request-output-queue-port": integer({
    default: null,
    status: noRay,
    help: "Port of the queue that carries tokens to the server.",
  }),
  "server-log-level": text({
    default: null,
    status: oneLogLevel,
    help: "Log level of the server.",
  }),
  "uvicorn-log-level": text({
    default: null,
    section: null,
    status: oneLogLevel,
    help: "Log level of uvicorn.",
  }),
  "num-available-dispatch-instances": integer({
    default: null,
    section: null,
    status: accepted("Llumnix never read it; --num-dispatch-instances limits dispatch"),
    help: "Number of instances for dispatch.",
  }),
  "grpc-migration-backend-address": text({
    default: null,
    section: null,
    status: accepted("Llumnix never read it; use --migration-backend-server-address"),
    help: "Address of grpc server for migration backend.",
  }),
} satisfies ArgumentTable;
