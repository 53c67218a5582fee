/** A role with a child of its own that fails as the first argument says. */
import { setupLogging } from "../../src/core/log.ts";
import { logger } from "../../src/core/log.ts";
import { exitOnDefects } from "../../src/roles/defects.ts";
import { UnavailableError } from "../../src/core/errors.ts";

setupLogging({ level: "info", filename: null, role: "role" });
const exitOnDefect = exitOnDefects(logger("test"));
await using _parts = { [Symbol.asyncDispose]: () => Promise.resolve(console.log("disposed")) };
const child = new Deno.Command("sleep", {
  args: ["600"],
  stdin: "null",
  stdout: "null",
  stderr: "null",
}).spawn();
console.log(child.pid);
const defect = () => {
  throw new TypeError("x is undefined");
};
switch (Deno.args[0]) {
  case "timer":
    setTimeout(defect, 1);
    break;
  case "rejection":
    Promise.reject(new TypeError("x is undefined"));
    break;
  case "awaited": {
    const started = new Promise((_, reject) =>
      setTimeout(() => reject(new TypeError("x is undefined")), 1)
    );
    started.catch(exitOnDefect);
    await started;
    break;
  }
  case "deliberate": {
    const started = Promise.reject(new UnavailableError("no room"));
    started.catch(exitOnDefect);
    await started.catch(() => child.kill());
    Deno.exit(7);
  }
}
await new Promise((resolve) => setTimeout(resolve, 120_000));
