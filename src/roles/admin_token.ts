import { UsageError } from "../core/errors.ts";

/** Where the token may be instead: command lines are seen by all users of a host. */
export const ADMIN_TOKEN_VARIABLE = "LLUMNIX_ADMIN_TOKEN";

/**
 * The token of whoever operates the service; null for none.
 * @throws {UsageError} it is one that cannot be sent
 */
export function adminToken(options: { readonly adminToken: string | null }): string | null {
  const isGiven = options.adminToken !== null;
  const token = options.adminToken ?? Deno.env.get(ADMIN_TOKEN_VARIABLE) ?? null;
  if (token === null || /^[\x21-\x7e]+$/.test(token)) return token;
  throw new UsageError(
    `${
      isGiven ? "--admin-token" : ADMIN_TOKEN_VARIABLE
    } must be of visible ASCII characters, one ` +
      "at least: it is sent as a header",
  );
}
