import type { Address } from "../../bus/bus.ts";

/** Tells a process whose successor it is. */
export const SUCCESSION_VARIABLE = "LLUMNIX_SUCCESSION";

/** What the variable holds, as JSON. */
export interface Succession {
  /** The control socket of the predecessor. */
  readonly predecessor: Address;
  /** Inherited descriptors of sockets that listen. */
  readonly sockets: readonly number[];
}
