import { STATUS_CODE } from "@std/http/status";
import { RequestError } from "../core/errors.ts";
import type { ServedModel } from "../frontend/service.ts";
import { HttpError } from "./errors.ts";
import { show } from "./validation.ts";

/**
 * The served name that a request asks for; the first one when it asks for none.
 * @throws {HttpError} 404, naming the served models
 */
export function servedName(asked: unknown, model: ServedModel): string {
  if (asked === undefined || asked === null) return model.names[0];
  if (typeof asked !== "string") {
    throw new RequestError(`model must be a string, got ${show(asked)}.`, "model");
  }
  if (model.names.includes(asked)) return asked;
  throw new HttpError(
    STATUS_CODE.NotFound,
    `The model "${asked.slice(0, 100)}" does not exist here; served: ${model.names.join(", ")}.`,
    { param: "model", code: "model_not_found" },
  );
}
