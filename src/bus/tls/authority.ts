/**
 * Certificates that come out of a shared secret. The secret gives the key of a certificate authority
 * (HKDF-SHA-256, an Ed25519 seed), the same at each process that has it; each process has a key of its
 * own, which the authority signs and which ends with the process. There is no file but the secret's.
 */
import "reflect-metadata"; // the certificate library needs it to be there first
import * as x509 from "@peculiar/x509";

const ED25519 = { name: "Ed25519" };
/** `.internal` is no public suffix: no public authority that a client may trust signs such a name. */
export const TLS_NAME = "cluster.llumnix.internal";
/** RFC 8410, section 7: the bytes before an Ed25519 seed in PKCS #8. */
const PKCS8_PREFIX = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/** The same bytes at every process: fixed dates, a fixed serial number, a deterministic signature. */
const AUTHORITY_FROM = new Date("2025-01-01");
const AUTHORITY_UNTIL = new Date("2125-01-01");
const DAY_MS = 86_400_000;
/** Clocks of hosts differ. */
const VALID_BEFORE_MS = DAY_MS;
/** Longer than a process runs: its key is in no file, and ends with it. */
const VALID_MS = 10 * 365 * DAY_MS;

export interface Credentials {
  /** The authority, PEM. */
  readonly authority: string;
  /** Of this process, PEM. */
  readonly certificate: string;
  readonly privateKey: string;
}

/** Makes the authority of a secret and a certificate of this process; takes 20 to 40 ms. */
export async function makeCredentials(secret: Uint8Array<ArrayBuffer>): Promise<Credentials> {
  x509.cryptoProvider.set(crypto);
  const keys = await authorityKeys(secret);
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: "01",
    name: "CN=llumnix cluster",
    notBefore: AUTHORITY_FROM,
    notAfter: AUTHORITY_UNTIL,
    signingAlgorithm: ED25519,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  const own = await crypto.subtle.generateKey(ED25519, true, ["sign", "verify"]) as CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: crypto.randomUUID().replaceAll("-", ""),
    subject: "CN=llumnix",
    issuer: authority.subject,
    notBefore: new Date(Date.now() - VALID_BEFORE_MS),
    notAfter: new Date(Date.now() + VALID_MS),
    publicKey: own.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: ED25519,
    extensions: [
      new x509.BasicConstraintsExtension(false),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([{ type: "dns", value: TLS_NAME }]),
    ],
  });
  const privateKey = await crypto.subtle.exportKey("pkcs8", own.privateKey);
  return {
    authority: authority.toString("pem"),
    certificate: `${certificate.toString("pem")}\n`,
    privateKey: `${x509.PemConverter.encode(privateKey, "PRIVATE KEY")}\n`,
  };
}

/** 32 bytes that follow from the secret, and are of no use for any other purpose. */
export async function deriveBytes(
  secret: Uint8Array<ArrayBuffer>,
  purpose: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const text = new TextEncoder();
  const salt = text.encode("llumnix cluster v1");
  const how = { name: "HKDF", hash: "SHA-256", salt, info: text.encode(purpose) };
  return new Uint8Array(await crypto.subtle.deriveBits(how, key, 256));
}

/** Bytes that processes with the secret show each other inside TLS, in hexadecimal. */
export async function membershipToken(secret: Uint8Array<ArrayBuffer>): Promise<string> {
  return (await deriveBytes(secret, "membership token")).toHex();
}

async function authorityKeys(secret: Uint8Array<ArrayBuffer>): Promise<CryptoKeyPair> {
  const seed = await deriveBytes(secret, "certificate authority");
  const pkcs8 = new Uint8Array([...PKCS8_PREFIX, ...seed]);
  const privateKey = await crypto.subtle.importKey("pkcs8", pkcs8, ED25519, true, ["sign"]);
  const { kty, crv, x } = await crypto.subtle.exportKey("jwk", privateKey);
  const publicKey = await crypto.subtle.importKey("jwk", { kty, crv, x }, ED25519, true, [
    "verify",
  ]);
  return { privateKey, publicKey };
}
