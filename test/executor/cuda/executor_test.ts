/** The CUDA executor on the software device: the suite of executors, and what must not change a token. */
import { testExecutor } from "../../conformance/executor.ts";
import { directory } from "../../ffi/software_device/device.ts";
import { cudaTest, load } from "./support.ts";

if (directory !== null) testExecutor("cuda executor", () => load());
else cudaTest("passes the suite of executors", () => {});
