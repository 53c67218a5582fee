/** The files of `--ssl-certfile`, `--ssl-keyfile` and `--ssl-ca-certs`, checked before they are used. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { ServerOptions } from "../core/options.ts";
import { UsageError } from "../core/errors.ts";
import { fileProblem } from "../core/file_problem.ts";

export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  /** Only clients with a certificate of these authorities are let in. */
  readonly ca?: string;
}

/**
 * Null when the options ask for plain HTTP.
 * @throws {UsageError} one of the two is missing, unreadable or no PEM, or they do not belong together
 */
export async function readTlsFiles(options: ServerOptions): Promise<TlsFiles | null> {
  const { sslCertfile, sslKeyfile, sslCaCerts } = options;
  const asksClients = checkClientOptions(options);
  if (sslCertfile === null && sslKeyfile === null) return null;
  if (sslCertfile === null || sslKeyfile === null) {
    const [given, missing] = sslCertfile === null
      ? ["--ssl-keyfile", "--ssl-certfile"]
      : ["--ssl-certfile", "--ssl-keyfile"];
    throw new UsageError(`${given} needs ${missing} too: TLS takes a certificate and its key`);
  }
  const cert = await readFile(sslCertfile, "--ssl-certfile");
  const key = await readFile(sslKeyfile, "--ssl-keyfile");
  const certificate = parse(
    () => new X509Certificate(cert),
    `--ssl-certfile ${sslCertfile} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)`,
  );
  const privateKey = parse(
    () => createPrivateKey(key),
    `--ssl-keyfile ${sslKeyfile} holds no unencrypted private key in PEM form ` +
      "(-----BEGIN PRIVATE KEY-----)",
  );
  if (!certificate.checkPrivateKey(privateKey)) {
    throw new UsageError(
      `the key in ${sslKeyfile} does not belong to the certificate in ${sslCertfile}; ` +
        "give the pair that was made together",
    );
  }
  if (!asksClients) return { cert, key };
  const ca = await readFile(sslCaCerts!, "--ssl-ca-certs");
  parse(
    () => new X509Certificate(ca),
    `--ssl-ca-certs ${sslCaCerts} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)`,
  );
  return { cert, key, ca };
}

/** Whether clients must show a certificate. */
function checkClientOptions({ sslCertfile, sslCaCerts, sslCertReqs }: ServerOptions): boolean {
  if (sslCertReqs === 0) {
    if (sslCaCerts === null) return false;
    throw new UsageError("--ssl-ca-certs needs --ssl-cert-reqs 2: otherwise no client is asked");
  }
  if (sslCaCerts === null) {
    throw new UsageError(
      "--ssl-cert-reqs 2 needs --ssl-ca-certs: the authorities that are trusted",
    );
  }
  if (sslCertfile === null) {
    throw new UsageError(
      "--ssl-cert-reqs 2 needs --ssl-certfile and --ssl-keyfile: it is for HTTPS",
    );
  }
  return true;
}

async function readFile(path: string, option: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (cause) {
    throw new UsageError(`${option} ${path} cannot be read: ${fileProblem(cause)}`, {
      cause,
    });
  }
}

function parse<T>(read: () => T, message: string): T {
  try {
    return read();
  } catch (cause) {
    throw new UsageError(message, { cause });
  }
}
