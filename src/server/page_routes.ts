/** The page at `/`, its files and its feed. The files are loaded when the first of them is asked for. */
import { STATUS_CODE } from "@std/http/status";
import { createHash } from "node:crypto";
import { OverloadedError } from "../core/errors.ts";
import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";
import { MAX_READERS } from "./feed/cluster_feed.ts";
import type { Exchange } from "./exchange.ts";

/** Seconds after which a page that found no place among the readers tries again. */
const RETRY_SECONDS = 10;

/**
 * The page runs its own scripts, talks to its own server, and is in no frame. Styles of elements are set by
 * scripts, which the policy allows; there are none in the document.
 */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'self'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

const contentTypes: Readonly<Record<string, string>> = {
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml",
};

export async function page(exchange: Exchange, { options }: ServerContext): Promise<void> {
  const { document } = await import("./page_files.ts");
  const root = `${options.rootPath.replace(/\/+$/, "")}/`;
  const text = document.replace('<base href="/"', () => `<base href="${escapeAttribute(root)}"`);
  sendFile(exchange, "text/html; charset=utf-8", text);
}

/** @throws {HttpError} 404: the page has no such file */
export async function pageFile(
  exchange: Exchange,
  _context: ServerContext,
  name: string,
): Promise<void> {
  const { files } = await import("./page_files.ts");
  const text = files.get(name);
  if (text === undefined) {
    const message = `The page has no file "${name.slice(0, 100)}".`;
    throw new HttpError(STATUS_CODE.NotFound, message, { code: "unknown_route" });
  }
  sendFile(exchange, contentTypes[name.slice(name.lastIndexOf(".") + 1)], text);
}

/**
 * Streams what the page shows until the reader leaves.
 * @throws {OverloadedError} too many pages are open
 * @throws {HttpError} 404: this server has no feed; 403: a page of another site asks
 */
export function pageFeed(exchange: Exchange, { feed, apiKeys, cors }: ServerContext): void {
  if (!apiKeys.areNeeded) cors.checkHost(exchange);
  if (feed === undefined) {
    throw new HttpError(STATUS_CODE.NotFound, "This server does not watch a cluster.", {
      code: "unknown_route",
    });
  }
  if (exchange.method === "HEAD") return exchange.send(STATUS_CODE.OK, "text/event-stream", "");
  if (!feed.hasPlaceFor(exchange.address)) {
    throw new OverloadedError(
      `${MAX_READERS} pages of this server are open, which is the most. Close one of them; this page ` +
        `tries again every ${RETRY_SECONDS} s.`,
      RETRY_SECONDS,
    );
  }
  const leave = feed.open(exchange.openStream("text/event-stream", ":\n\n"), exchange.address);
  exchange.onLeave(leave);
}

function sendFile(exchange: Exchange, contentType: string, text: string): void {
  const etag = etagOf(text);
  const headers = {
    etag,
    "cache-control": "no-cache",
    "content-security-policy": policy,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
  };
  const isKnown = exchange.header("if-none-match") === etag;
  if (isKnown) exchange.send(STATUS_CODE.NotModified, contentType, "", headers);
  else exchange.send(STATUS_CODE.OK, contentType, text, headers);
}

/** Digests of the page's files, which never change. */
const etags = new Map<string, string>();

function etagOf(text: string): string {
  const known = etags.get(text);
  if (known !== undefined) return known;
  const etag = `"${createHash("sha256").update(text).digest("base64url").slice(0, 22)}"`;
  etags.set(text, etag);
  return etag;
}

function escapeAttribute(text: string): string {
  return text.replace(/[&"<>]/g, (character) => `&#${character.charCodeAt(0)};`);
}
