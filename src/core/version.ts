import config from "../../deno.json" with { type: "json" };

/** Version of this program. */
export const version: string = config.version;
