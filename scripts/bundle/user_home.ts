/** Imported first by the executable: gives HOME back, which `header.sh` had to hide from Deno. */
const home = Deno.env.get("LLUMNIX_HOME");
if (home !== undefined) {
  if (home === "") Deno.env.delete("HOME");
  else Deno.env.set("HOME", home);
  Deno.env.delete("LLUMNIX_HOME");
}
