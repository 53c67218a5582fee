import { UsageError } from "../core/errors.ts";

/** Holds the token instead of the command line, which all users of a host can see. */
export const ADMIN_TOKEN_VARIABLE = "LLUMNIX_ADMIN_TOKEN";

/**
 * The token that opens the admin routes; null if none was set, which closes them.
 * @throws {UsageError} the token cannot be sent in a header
 */
export function adminToken(options: { readonly adminToken: string | null }): string | null {
  const isGiven = options.adminToken !== null;
  const token = options.adminToken ?? Deno.env.get(ADMIN_TOKEN_VARIABLE) ?? null;
  if (token === null || /^[\x21-\x7e]+$/.test(token)) return token;
  throw new UsageError(
    `${isGiven ? "--admin-token" : ADMIN_TOKEN_VARIABLE} must be one or more visible ASCII ` +
      "characters: it is sent in a header",
  );
}
