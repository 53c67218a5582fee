import type { Log } from "../core/log.ts";
import type { ServerOptions } from "../core/options.ts";
import type { TurnBudget } from "../core/turn_budget.ts";
import type { TextService } from "../frontend/service.ts";
import type { ApiKeys, WrongTokens } from "./access.ts";
import type { AdminAccess } from "./admin_routes.ts";
import type { Admission } from "./admission.ts";
import type { CorsPolicy } from "./cors.ts";
import type { ClusterFeed } from "./feed/cluster_feed.ts";
import type { Generation } from "./generation.ts";
import type { Exposition } from "../metrics/exposition.ts";
import type { RequestMeter } from "../metrics/request_meter.ts";
import type { FieldCheck } from "./unknown_fields.ts";

/** What a route gets, beside the exchange. */
export interface ServerContext {
  readonly service: TextService;
  /** Absent: the admin routes are off. */
  readonly admin?: AdminAccess;
  /** What the page at `/` shows; absent: the page has nothing to show. */
  readonly feed?: ClusterFeed;
  readonly options: ServerOptions;
  readonly version: string;
  readonly log: Log;
  readonly admission: Admission;
  readonly apiKeys: ApiKeys;
  readonly wrongTokens: WrongTokens;
  readonly cors: CorsPolicy;
  /** What `--unknown-fields` asks for. */
  readonly checkFields: FieldCheck;
  /** Characters or token ids of prompts that are handed to the service in one turn of the event loop. */
  readonly encoding: TurnBudget;
  /** Measures all requests. */
  readonly meter: RequestMeter;
  /** The text of `/metrics`. */
  readonly metrics: Exposition;
  /** Generations in work; ended by force at the deadline of a shutdown. */
  readonly generations: Set<Generation>;
}
