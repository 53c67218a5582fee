/**
 * Imported first by the self-extracting executable: takes over what `header.sh` hands it in the
 * environment, which is then the user's again. HOME had to be hidden from Deno.
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
