/**
 * The self-extracting executable imports this first. It reads the variables that `header.sh` passes, and
 * restores the user's environment. `header.sh` hides HOME from Deno (see there).
 */
import { setExecutable } from "../../src/core/self_command.ts";

const home = Deno.env.get("LLUMNIX_HOME");
if (home !== undefined) {
  if (home === "") Deno.env.delete("HOME");
  else Deno.env.set("HOME", home);
  Deno.env.delete("LLUMNIX_HOME");
}

const executable = Deno.env.get("LLUMNIX_SELF");
if (executable !== undefined) {
  setExecutable(executable);
  Deno.env.delete("LLUMNIX_SELF");
}
