import type { EngineOptions, ServerOptions } from "../core/options.ts";
import { modelName } from "./served_model.ts";

/** Where a role without an HTTP server of its own serves `/metrics`. */
export interface MetricsPlace {
  readonly host: string;
  readonly port: number;
  /** The model's name for clients. */
  readonly model: string;
}

/** Where the options want `/metrics`; undefined: nowhere. */
export async function metricsPlace(
  options: EngineOptions & Pick<ServerOptions, "servedModelName"> & {
    readonly metricsPort: number | null;
    readonly metricsHost: string;
  },
): Promise<MetricsPlace | undefined> {
  const { metricsPort: port, metricsHost: host } = options;
  return port === null ? undefined : { host, port, model: await modelName(options) };
}
