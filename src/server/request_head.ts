/** What RFC 9112 forbids in the head of a request, and the HTTP parser lets through. */
import { STATUS_CODE } from "@std/http/status";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";

/**
 * A proxy in front of the server may read such a request as one to another host, or as one that ends elsewhere.
 * The connection is closed after the answer, because nobody knows where the next request begins.
 * @throws {HttpError} 400 for more than one Host (section 3.2), 501 for a transfer coding other than chunked
 *   (section 6.1)
 */
export function checkHead(exchange: Exchange): void {
  const problem = problemOf(exchange);
  if (problem === null) return;
  exchange.setHeader("connection", "close");
  throw problem;
}

function problemOf(exchange: Exchange): HttpError | null {
  const coding = exchange.header("transfer-encoding");
  if (coding !== null && coding.trim().toLowerCase() !== "chunked") {
    return new HttpError(
      STATUS_CODE.NotImplemented,
      `Transfer-Encoding: ${
        coding.slice(0, 100)
      } is not supported. Send the body with Content-Length or with ` +
        "Transfer-Encoding: chunked; a body that is gzip says so by Content-Encoding: gzip.",
    );
  }
  if (exchange.headers("host").length <= 1) return null;
  return new HttpError(STATUS_CODE.BadRequest, "The request has several Host headers. Send one.");
}
