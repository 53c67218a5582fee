import type { Peer } from "../bus/bus.ts";
import { operatorProof } from "../core/operator_proof.ts";

/** Managers that know, or are just told, that this process has the admin token. */
const proofs = new WeakMap<Peer, Promise<void>>();

/**
 * Proves to a manager that this process has the operators' token, once for each connection. Calls that come
 * meanwhile wait for the same proof: a second challenge would void the first. After a failure the next call
 * tries again.
 * @throws {ConflictError} the manager has another token, or none
 * @throws {LlumnixError} it does not answer
 */
export function proveOperatorTo(manager: Peer, token: string, timeoutMs: number): Promise<void> {
  const known = proofs.get(manager);
  if (known !== undefined) return known;
  const proof = prove(manager, token, timeoutMs);
  proofs.set(manager, proof);
  proof.catch(() => proofs.delete(manager));
  return proof;
}

async function prove(manager: Peer, token: string, timeoutMs: number): Promise<void> {
  const options = { timeoutMs };
  const { data: { challenge } } = await manager.call("operator_challenge", { data: null }, options);
  const data = { proof: operatorProof(token, challenge) };
  await manager.call("operator_prove", { data }, options);
}
