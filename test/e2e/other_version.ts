/** Executables of other versions, for tests of an upgrade: copies of the built one. */
import assert from "node:assert/strict";
import config from "../../deno.json" with { type: "json" };
import { executablePath } from "./harness.ts";

/** At least the shell script at the beginning. */
const HEADER_BYTES = 16_384;

/** Whether such copies can be made: the built executable is a self-extracting one. */
export function canMakeVersions(): boolean {
  try {
    using file = Deno.openSync(executablePath);
    const start = new Uint8Array(9);
    file.readSync(start);
    return new TextDecoder().decode(start) === "#!/bin/sh";
  } catch {
    return false;
  }
}

/**
 * Writes a copy of the executable that says it is of another version, and unpacks under another name.
 * @param version as long as the real one
 * @param protocolVersion of the bus, a digit; default: the real one
 */
export async function makeVersion(
  path: string,
  version: string,
  protocolVersion?: number,
): Promise<void> {
  assert.equal(version.length, config.version.length);
  const bytes = await Deno.readFile(executablePath);
  replaceIn(bytes.subarray(0, HEADER_BYTES), `llumnix-${config.version}-`, `llumnix-${version}-`);
  replaceIn(bytes, `version: "${config.version}"`, `version: "${version}"`);
  if (protocolVersion !== undefined) {
    const bound = /PROTOCOL_VERSION\d* = \d;/g; // the bundler may number the names
    replaceIn(bytes, bound, (text) => text.replace(/\d;$/, `${protocolVersion};`));
  }
  await Deno.writeFile(path, bytes, { mode: 0o755 });
}

/** Replaces a text everywhere. In Latin 1 a position in the text is one in the bytes. */
function replaceIn(
  bytes: Uint8Array,
  from: string | RegExp,
  to: string | ((text: string) => string),
): void {
  const text = new TextDecoder("latin1").decode(bytes);
  const pattern = typeof from === "string" ? new RegExp(RegExp.escape(from), "g") : from;
  const places = [...text.matchAll(pattern)];
  assert.ok(places.length > 0, `the executable has no ${from}`);
  for (const { 0: found, index } of places) {
    const written = typeof to === "string" ? to : to(found);
    assert.equal(written.length, found.length);
    bytes.set(new TextEncoder().encode(written), index);
  }
}

/** Removes what copies of these versions have unpacked. */
export function removeUnpacked(versions: readonly string[]): void {
  const directory = `/tmp/llumnix-${Deno.uid()}`; // where a program with an empty environment unpacks
  for (const { name } of [...Deno.readDirSync(directory)]) {
    if (versions.some((version) => name.startsWith(`llumnix-${version}-`))) {
      Deno.removeSync(`${directory}/${name}`, { recursive: true });
    }
  }
}
