import { UnavailableError } from "../core/errors.ts";
import type { Address } from "./bus.ts";

/** An address taken apart. */
export type ParsedAddress =
  | { readonly scheme: "inproc"; readonly name: string }
  | { readonly scheme: "unix"; readonly path: string }
  | { readonly scheme: "tcp"; readonly host: string; readonly port: number };

/** `sun_path` of sockaddr_un less the closing zero: 108 bytes on Linux (unix(7)), 104 on macOS. */
export const MAX_UNIX_PATH_BYTES = Deno.build.os === "darwin" ? 103 : 107;

const FORMS = "inproc:NAME, unix:PATH or tcp:HOST:PORT";

/**
 * Takes an address apart. IPv6 hosts stand in brackets: `tcp:[::1]:8000`.
 * @throws {UnavailableError} the address has none of the known forms, or its path is too long
 */
export function parseAddress(address: Address): ParsedAddress {
  const colon = address.indexOf(":");
  const scheme = address.slice(0, colon);
  const rest = address.slice(colon + 1);
  if (colon > 0 && rest !== "") {
    if (scheme === "inproc") return { scheme, name: rest };
    if (scheme === "unix") return { scheme, path: checkPath(rest) };
    const tcp = scheme === "tcp" && /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(rest);
    if (tcp && Number(tcp[3]) <= 65535) {
      return { scheme: "tcp", host: tcp[1] ?? tcp[2], port: Number(tcp[3]) };
    }
  }
  throw new UnavailableError(`bus address "${address}" is not of the form ${FORMS}`);
}

/** The inverse of {@linkcode parseAddress} for TCP. */
export function tcpAddress(host: string, port: number): Address {
  return host.includes(":") ? `tcp:[${host}]:${port}` : `tcp:${host}:${port}`;
}

/** The host of a TCP address; null for other addresses. */
export function tcpHost(address: Address): string | null {
  const parsed = parseAddress(address);
  return parsed.scheme === "tcp" ? parsed.host : null;
}

function checkPath(path: string): string {
  const bytes = new TextEncoder().encode(path).length;
  if (bytes <= MAX_UNIX_PATH_BYTES) return path;
  throw new UnavailableError(
    `socket path "${path}" has ${bytes} bytes, but the system allows ${MAX_UNIX_PATH_BYTES}: ` +
      `use a shorter directory (XDG_RUNTIME_DIR or TMPDIR)`,
  );
}
