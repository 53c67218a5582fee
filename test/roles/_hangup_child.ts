/** Logs to the file of its argument until a signal stops it; for hangup_test.ts. */
import { logger, setupLogging } from "../../src/core/log.ts";
import { StopSignals } from "../../src/roles/stop_signals.ts";

setupLogging({ level: "info", filename: Deno.args[0] });
using signals = new StopSignals();
const log = logger("child");
log.info("ready", { pid: Deno.pid });
const timer = setInterval(() => log.info("here"), 20);
log.info("stopping", { signal: await signals.first });
clearInterval(timer);
