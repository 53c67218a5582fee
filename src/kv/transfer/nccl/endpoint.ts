import { type KvLayout, layoutDifference } from "../../layout.ts";

/** What peers must know of an instance before they send. */
export interface NcclEndpoint {
  readonly model: string;
  readonly layout: KvLayout;
  /** The device's UUID; "" where it is not known. */
  readonly device: string;
}

/** Why two instances cannot exchange blocks by NCCL; null when they can. */
export function endpointProblem(own: NcclEndpoint, data: unknown): string | null {
  const other = (data ?? {}) as Partial<NcclEndpoint>;
  if (typeof other.model !== "string" || typeof other.layout !== "object") {
    return "the other instance has no NCCL";
  }
  if (own.model !== other.model) return `the model is ${own.model} here and ${other.model} there`;
  if (own.device !== "" && own.device === other.device) {
    return `both instances are on the device ${own.device}, and NCCL takes one rank a device: ` +
      `choose --migration-backend rayrpc, or start the instances on different devices`;
  }
  return layoutDifference(own.layout, other.layout);
}
