/** `/openapi.json`, made from the schemas that requests are checked with, and `/docs`, a page made from that. */
import { STATUS_CODE } from "@std/http/status";
import * as z from "zod";
import { chatSchema } from "./chat.ts";
import { completionSchema } from "./completions.ts";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { generateSchema } from "./generate.ts";
import { tokenizeSchema } from "./tokenize.ts";

type JsonSchema = Readonly<Record<string, unknown>>;

interface Operation {
  readonly method: "get" | "post";
  readonly path: string;
  readonly summary: string;
  /** Fields of the body that the route reads beside its schema. */
  readonly fields?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly schema?: z.ZodObject;
  readonly needsKey?: boolean;
  readonly pathParameter?: string;
  /** Headers that the route reads, with what each says. */
  readonly headers?: Readonly<Record<string, string>>;
}

const resumingHeaders = {
  "Last-Event-ID":
    'Goes on with a stream that was asked for with "resumable": true: the id of the ' +
    "last event that came, or the x-resume-id of the answer if none came. Body and API key have to " +
    "be those that the stream was started with.",
};

const text = { type: "string" };
const tokenIds = { type: "array", items: { type: "integer", minimum: 0 } };
const onePrompt = { anyOf: [text, tokenIds], description: "Text, or token ids." };
const anyPrompt = {
  anyOf: [text, tokenIds, { type: "array", items: text }, { type: "array", items: tokenIds }],
  description: "Text or token ids, or an array of either.",
};
const messages = {
  type: "array",
  minItems: 1,
  items: {
    type: "object",
    required: ["role"],
    properties: {
      role: { type: "string", minLength: 1 },
      content: {
        anyOf: [text, {
          type: "array",
          items: {
            type: "object",
            required: ["type", "text"],
            properties: { type: { const: "text" }, text },
          },
        }, { type: "null" }],
      },
      name: { type: ["string", "null"] },
      reasoning_content: { type: ["string", "null"] },
    },
  },
};

const operations: readonly Operation[] = [
  { method: "get", path: "/health", summary: "200 while the server answers." },
  { method: "get", path: "/ping", summary: "The same as /health." },
  { method: "post", path: "/ping", summary: "The same as /health." },
  {
    method: "get",
    path: "/is_ready",
    summary: "Whether every instance that was asked for serves.",
  },
  { method: "get", path: "/load", summary: "Requests in work." },
  { method: "get", path: "/", summary: "The page that shows the service." },
  { method: "get", path: "/page/{file}", summary: "A file of the page.", pathParameter: "file" },
  {
    method: "get",
    path: "/page/feed",
    summary: "What the page shows, as server-sent events.",
    needsKey: true,
  },
  { method: "get", path: "/metrics", summary: "Metrics of the service, for Prometheus." },
  { method: "get", path: "/version", summary: "The version of this server." },
  { method: "get", path: "/v1/models", summary: "The served models.", needsKey: true },
  {
    method: "get",
    path: "/v1/models/{id}",
    summary: "One served model.",
    needsKey: true,
    pathParameter: "id",
  },
  {
    method: "post",
    path: "/v1/completions",
    summary: "Continue prompts (OpenAI's API with vLLM's extensions).",
    fields: { prompt: anyPrompt },
    required: ["prompt"],
    schema: completionSchema,
    needsKey: true,
    headers: resumingHeaders,
  },
  {
    method: "post",
    path: "/v1/chat/completions",
    summary: "Answer a chat (OpenAI's API with vLLM's extensions).",
    fields: { messages },
    required: ["messages"],
    schema: chatSchema,
    needsKey: true,
    headers: resumingHeaders,
  },
  {
    method: "post",
    path: "/generate",
    summary: "Continue a prompt; answers prompt and output (vLLM's plain server).",
    fields: { prompt: onePrompt },
    required: ["prompt"],
    schema: generateSchema,
    needsKey: true,
  },
  {
    method: "post",
    path: "/generate_benchmark",
    summary: "Continue a prompt; answers when each token came (Llumnix).",
    fields: { prompt: onePrompt },
    required: ["prompt"],
    schema: generateSchema,
    needsKey: true,
  },
  {
    method: "post",
    path: "/tokenize",
    summary: "The tokens of a prompt or of a chat.",
    fields: { prompt: text, messages },
    schema: tokenizeSchema,
    needsKey: true,
  },
  {
    method: "post",
    path: "/detokenize",
    summary: "The text of tokens.",
    fields: { tokens: tokenIds },
    required: ["tokens"],
    schema: z.object({}),
    needsKey: true,
  },
];

/** Statuses of refusals, with what each says. */
const refusals: Readonly<Record<string, string>> = {
  400: "The request cannot be served as it is written.",
  401: "The request has no API key, or a wrong one.",
  404: "There is no such model, or no such stream to go on with.",
  413: "The body is larger than --max-body-bytes.",
  415: "The body is not JSON.",
  429: "The service is full. Retry later.",
  503: "No instance can serve the request now. Retry later.",
};

const errorSchema = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["message", "type", "param", "code"],
      properties: {
        message: text,
        type: text,
        param: { type: ["string", "null"] },
        code: { type: ["string", "null"] },
      },
    },
  },
};

/** The description of the HTTP API, as OpenAPI 3.1. */
export function openApiDocument({ options, version, service }: ServerContext): JsonSchema {
  const { names } = service.model;
  const paths: Record<string, Record<string, JsonSchema>> = {};
  for (const operation of operations) {
    (paths[operation.path] ??= {})[operation.method] = describe(operation, names);
  }
  return {
    openapi: "3.1.0",
    info: { title: "Llumnix", version },
    ...(options.rootPath !== "" && { servers: [{ url: options.rootPath }] }),
    paths,
    components: {
      schemas: { Error: errorSchema },
      securitySchemes: { key: { type: "http", scheme: "bearer" } },
    },
  };
}

function describe(operation: Operation, modelNames: readonly string[]): JsonSchema {
  const { method, path, summary, needsKey } = operation;
  const parameters = parametersOf(operation, modelNames);
  const body = bodySchema(operation, modelNames);
  const isReading = body !== null;
  const statuses = isReading ? Object.keys(refusals) : [
    ...(needsKey ? ["401"] : []),
    ...(operation.pathParameter ? ["404"] : []),
  ];
  const failure = (status: string) => ({
    description: refusals[status],
    content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
  });
  return {
    operationId: `${method}${path.replaceAll(/[^a-z0-9]+/gi, "_")}`,
    summary,
    ...(needsKey && { security: [{ key: [] }, {}] }),
    ...(parameters.length > 0 && { parameters }),
    ...(isReading && {
      requestBody: { required: true, content: { "application/json": { schema: body } } },
    }),
    responses: {
      200: { description: "The answer; a stream of events where the request asks for one." },
      ...Object.fromEntries(statuses.map((status) => [status, failure(status)])),
    },
  };
}

function parametersOf(
  { pathParameter, headers = {} }: Operation,
  modelNames: readonly string[],
): JsonSchema[] {
  const parameters: JsonSchema[] = Object.entries(headers).map(([name, description]) => ({
    name,
    in: "header",
    description,
    schema: text,
  }));
  if (pathParameter === undefined) return parameters;
  const schema = pathParameter === "id" ? { enum: modelNames } : text;
  return [...parameters, { name: pathParameter, in: "path", required: true, schema }];
}

function bodySchema(
  { schema, fields = {}, required = [] }: Operation,
  modelNames: readonly string[],
): JsonSchema | null {
  if (schema === undefined) return null;
  const { $schema: _, properties, ...rest } = z.toJSONSchema(schema, {
    io: "input",
    unrepresentable: "any",
  });
  return {
    ...rest,
    properties: { model: { enum: [...modelNames, null] }, ...fields, ...properties },
    ...(required.length > 0 && { required }),
  };
}

export function openApi(exchange: Exchange, context: ServerContext): void {
  exchange.sendJson(STATUS_CODE.OK, openApiDocument(context));
}

/** A page about the API that needs nothing from elsewhere. */
export function docs(exchange: Exchange, context: ServerContext): void {
  exchange.send(STATUS_CODE.OK, "text/html; charset=utf-8", docsPage(context), {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
  });
}

function docsPage({ version, options, service }: ServerContext): string {
  const sections = operations.map((operation) => {
    const { method, path, summary, required = [] } = operation;
    const schema = bodySchema(operation, service.model.names);
    const properties = schema?.properties as Record<string, JsonSchema> | undefined;
    const rows = Object.entries(properties ?? {}).map(([name, schema]) =>
      `<tr><td><code>${escape(name)}</code>${required.includes(name) ? " *" : ""}</td>` +
      `<td>${escape(typeOf(schema))}</td></tr>`
    );
    for (const [name, meaning] of Object.entries(operation.headers ?? {})) {
      rows.push(`<tr><td>header <code>${escape(name)}</code></td><td>${escape(meaning)}</td></tr>`);
    }
    const table = rows.length > 0 ? `<table>${rows.join("")}</table>` : "";
    return `<section><h2>${method.toUpperCase()} ${escape(path)}</h2><p>${escape(summary)}</p>` +
      `${table}</section>`;
  });
  const description = `${options.rootPath}/openapi.json`;
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Llumnix API</title>` +
    `<style>body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}` +
    `table{border-collapse:collapse}td{border:1px solid #ccc;padding:.2em .6em}</style>` +
    `<h1>Llumnix ${escape(version)}</h1><p>The same for programs: ` +
    `<a href="${
      escape(description)
    }">openapi.json</a>. A star marks fields that must be there.</p>` +
    `${sections.join("")}</html>`;
}

/** The type of a field in a few words. */
/** JSON Schema's name of the type of null, which goes without saying in a list of fields. */
const nullType = "null";
const isNotNull = (type: unknown) => type !== nullType;

function typeOf(schema: JsonSchema): string {
  const options = (schema.anyOf ?? schema.oneOf) as readonly JsonSchema[] | undefined;
  if (options !== undefined) {
    const names = options.map(typeOf).filter(isNotNull);
    return [...new Set(names)].join(" or ");
  }
  if (schema.enum !== undefined) return (schema.enum as unknown[]).map(String).join(" or ");
  if (schema.const !== undefined) return String(schema.const);
  const types = [schema.type ?? "any"].flat().filter(isNotNull);
  const items = schema.items === undefined ? "" : ` of ${typeOf(schema.items as JsonSchema)}`;
  return types.join(" or ") + items;
}

function escape(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
  };
  return text.replace(/[&<>"]/g, (character) => entities[character]);
}
