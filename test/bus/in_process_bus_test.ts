import { InProcessBus } from "../../src/bus/in_process_bus.ts";
import { openBus } from "../../src/bus/open_bus.ts";
import { testBus } from "../conformance/bus.ts";

let addresses = 0;
const freshAddress = () => `inproc:test-${addresses++}`;

testBus({ name: "in-process", open: (limits) => new InProcessBus(limits), freshAddress });
testBus({ name: "opened in-process", open: (limits) => openBus({ limits }), freshAddress });
