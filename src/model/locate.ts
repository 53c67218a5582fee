import { ModelError } from "../core/errors.ts";

export interface LocateOptions {
  /** Branch, tag or commit in the cache; null for `main`. */
  readonly revision: string | null;
  /** Cache directory; null for the Hugging Face default. */
  readonly downloadDir: string | null;
}

/** Environment variables: `Deno.env`, or others in tests. */
export type Env = Pick<Deno.Env, "get">;

/**
 * Finds the directory of a model (or of a tokenizer): `name` is a local directory, or a hub name in the
 * local Hugging Face cache. It downloads nothing.
 * @throws {ModelError} `name` is neither of them
 */
export function locateModel(name: string, options: LocateOptions, env: Env = Deno.env): string {
  if (name === "") {
    throw new ModelError("The model's name is empty. Give a directory, or a name on the hub.");
  }
  const kind = entryKind(name);
  if (kind === "directory") return name.replace(/(?<=.)\/+$/, "");
  if (kind === "file") {
    throw new ModelError(
      `${name} is a file. Expected a directory in Hugging Face layout: config.json, ` +
        `*.safetensors, tokenizer.json.`,
    );
  }
  if (!isHubName(name)) {
    throw new ModelError(
      `Model directory ${name} does not exist. Expected a directory in Hugging Face layout, or a ` +
        "name such as Qwen/Qwen3-0.6B that is in the local Hugging Face cache.",
    );
  }
  return locateInCache(name, options, env);
}

/** The same text for the same model: the real path of a directory, else the name. */
export function modelIdentity(name: string): string {
  return entryKind(name) === "directory" ? Deno.realPathSync(name) : name;
}

/** `organisation/name`, or an old name without organisation. */
function isHubName(name: string): boolean {
  return /^[A-Za-z0-9_][\w.-]*(\/[\w.-]+)?$/.test(name);
}

/** Cache layout: huggingface_hub, "Understand caching" (`models--org--name/{refs,snapshots}`). */
function locateInCache(name: string, options: LocateOptions, env: Env): string {
  const root = options.downloadDir ?? hubCache(env);
  const repository = `${root}/models--${name.replaceAll("/", "--")}`;
  const revision = options.revision ?? "main";
  if (entryKind(repository) !== "directory") {
    throw new ModelError(
      `Model ${name} is neither a local directory nor in the local Hugging Face cache ` +
        `(${repository}). Models are not downloaded: fetch it first with "hf download ${name}", ` +
        `or pass the directory that holds it.`,
    );
  }
  const commit = readRef(`${repository}/refs/${revision}`) ?? revision;
  const snapshot = `${repository}/snapshots/${commit}`;
  if (!commit.includes("..") && entryKind(snapshot) === "directory") return snapshot;
  const known = [...list(`${repository}/refs`), ...list(`${repository}/snapshots`)];
  throw new ModelError(
    `Revision ${revision} of ${name} is not in the local Hugging Face cache (${repository}). ` +
      `There: ${known.join(", ") || "none"}. Fetch it first with ` +
      `"hf download ${name} --revision ${revision}", or choose another by --revision.`,
  );
}

/** The hub cache as huggingface_hub finds it (constants.py). */
function hubCache(env: Env): string {
  const hub = env.get("HF_HUB_CACHE") || env.get("HUGGINGFACE_HUB_CACHE");
  if (hub) return hub;
  const cache = env.get("XDG_CACHE_HOME") || `${env.get("HOME") ?? ""}/.cache`;
  return `${env.get("HF_HOME") || `${cache}/huggingface`}/hub`;
}

function readRef(path: string): string | null {
  return entryKind(path) === "file" ? Deno.readTextFileSync(path).trim() : null;
}

function list(path: string): string[] {
  if (entryKind(path) !== "directory") return [];
  return [...Deno.readDirSync(path)].map((entry) => entry.name).sort();
}

function entryKind(path: string): "file" | "directory" | null {
  try {
    const info = Deno.statSync(path);
    return info.isDirectory ? "directory" : info.isFile ? "file" : null;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
      return null;
    }
    throw new ModelError(`Cannot read ${path}: ${(error as Error).message}.`, { cause: error });
  }
}
