/** `llumnix profile`: makes latency profiles for simulated instances. */
import { UsageError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import { checkWritable } from "../../core/files.ts";
import { realClock } from "../../core/clock.ts";
import { version } from "../../core/version.ts";
import { findExecutorKind } from "../../executor/devices.ts";
import { simulatedModels } from "../../executor/sim/devices.ts";
import type { CacheShape, ModelProfile, RequestLatency } from "../../executor/sim/profile.ts";
import { loadThreadedExecutor } from "../../executor/thread/threaded_executor.ts";
import { resolveModel } from "../../model/resolve.ts";
import { renderReport } from "../../report/html.ts";
import { withEntry } from "../../sim/profile/entry.ts";
import { type Fit, fitRequests, fitSteps } from "../../sim/profile/fit.ts";
import { fitReport, fitText } from "../../sim/profile/fit_report.ts";
import { gridOf, measureGrid } from "../../sim/profile/grid.ts";
import { readRequestSamples } from "../../sim/profile/request_samples.ts";
import { readStepLog, type StepSample } from "../../sim/profile/step_log.ts";
import { stepsCsv } from "../../sim/profile/steps_csv.ts";
import { camelCase } from "../arguments/argument.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import { engineDefaults, type Group } from "../arguments/tables.ts";
import { readCommandLine } from "../command_line.ts";
import { fitGroup, type FitOptions, runGroup, type RunOptions } from "../profile/arguments.ts";

/** @throws {LlumnixError} a wrong command line, log or model */
export async function runProfile([action, ...words]: readonly string[]): Promise<number> {
  switch (action) {
    case "run":
      return await measureExecutor(optionsOf<RunOptions>(runGroup, words));
    case "fit": {
      const end = words.findIndex((word) => word.startsWith("-"));
      const paths = end < 0 ? words : words.slice(0, end);
      return fitLogs(paths, optionsOf<FitOptions>(fitGroup, words.slice(paths.length)));
    }
    default:
      throw new UsageError(
        `expected llumnix profile run or llumnix profile fit CSV, not ${
          action === undefined ? "nothing" : `"${action}"`
        }; llumnix help profile lists the options of both`,
      );
  }
}

function optionsOf<Options>(group: Group, argv: readonly string[]): Options {
  const index = new ArgumentIndex([group]);
  const given = readCommandLine(argv, index);
  return Object.fromEntries(
    index.entries.map(({ name, argument }) => [
      camelCase(name),
      given.get(name) ?? argument.default,
    ]),
  ) as Options;
}

async function measureExecutor(options: RunOptions): Promise<number> {
  const engine = { ...engineDefaults(), ...options, swapSpace: 0 };
  const kind = findExecutorKind(options.device);
  if (kind === undefined) {
    throw new UsageError(
      `--device ${options.device} is not available here: llumnix doctor says what is`,
    );
  }
  if (kind.usesProfile) {
    throw new UsageError(
      `--device ${kind.device} runs on a profile itself: choose a device that computes, such as cpu`,
    );
  }
  const { device } = kind;
  if (engine.kvCacheDtype === "fp8") throw new UsageError(noNarrowCache);
  for (const path of [options.out, options.csv, options.html]) {
    if (path !== null) checkWritable(path);
  }
  // On a thread of its own, as in an instance.
  const executor = await loadThreadedExecutor({
    device,
    options: engine,
    hostShare: options.hostShare,
  });
  try {
    const { info } = executor;
    const grid = gridOf(executor, options);
    let shownMs = realClock.nowMs();
    const measured = await measureGrid(executor, grid, (done, total) => {
      if (realClock.nowMs() - shownMs < 5000) return;
      shownMs = realClock.nowMs();
      console.error(`llumnix profile: ${done} of ${total} steps`);
    });
    const steps = measured.filter(({ latencyMs }) => latencyMs > 0);
    const source = `${steps.length} steps of ${info.description}, llumnix profile run ${version}`;
    const fit = fitSteps(steps, [], source);
    if (options.csv !== null) write(options.csv, stepsCsv(steps));
    const { dtype, numLayers, numKvHeads, headDim } = info.layout;
    if (dtype === "float8_e4m3") throw new UsageError(noNarrowCache);
    finish(options, fit, steps, {
      model: nameOf(options.name ?? info.model),
      shape: { dtype, numLayers, numKvHeads, headDim, maxModelLen: info.maxModelLen },
      maxPieceTokens: info.maxPieceTokens,
      numBlocks: info.numBlocks,
      tensorParallelSize: 1,
      pipelineParallelSize: 1,
      maxBatchedTokens: null,
      source,
    });
    return 0;
  } finally {
    await executor.close();
  }
}

const noNarrowCache = "--kv-cache-dtype fp8: profiles do not know FP8 caches. Leave it out.";

function fitLogs(paths: readonly string[], options: FitOptions): number {
  if (paths.length === 0) throw new UsageError("expected files: llumnix profile fit CSV [CSV ...]");
  if (options.model === null) {
    throw new UsageError(
      "--model is missing: expected the model that the logs are of, a name or a directory",
    );
  }
  const shape = shapeOf(options, options.model);
  const logs = paths.map(readStepLog);
  const steps = logs.flatMap((log) => log.steps);
  const pausesMs = options.pauses ? logs.flatMap((log) => log.pausesMs) : [];
  const source = `${steps.length} steps of ${paths.map(nameOf).join(", ")}, llumnix profile fit ` +
    version;
  const fit = fitSteps(steps, pausesMs, source);
  const maxPieceTokens = options.maxPieceTokens ?? undefined;
  const request = options.requests === null
    ? undefined
    : requestsOf(options.requests, fit, maxPieceTokens);
  const numBlocks = options.numGpuBlocks ??
    logs.map((log) => log.numBlocks).find((count) => count !== null) ?? null;
  if (numBlocks === null) {
    throw new UsageError("the logs do not tell the number of blocks: add --num-gpu-blocks");
  }
  finish(options, fit, steps, {
    model: nameOf(options.name ?? options.model),
    shape,
    request,
    maxPieceTokens,
    numBlocks,
    tensorParallelSize: options.tensorParallelSize,
    pipelineParallelSize: options.pipelineParallelSize,
    maxBatchedTokens: options.maxNumBatchedTokens,
    source,
  });
  return 0;
}

function requestsOf(path: string, fit: Fit, maxPieceTokens: number | undefined): RequestLatency {
  const samples = readRequestSamples(path);
  const source = `median of ${samples.length} requests of ${nameOf(path)}, sent one at a time`;
  return fitRequests(samples, { ...fit, maxPieceTokens }, source);
}

/** What an entry has besides the fit. */
interface EntryFacts {
  readonly model: string;
  readonly shape: CacheShape;
  readonly request?: RequestLatency;
  readonly maxPieceTokens?: number;
  readonly numBlocks: number;
  readonly tensorParallelSize: number;
  readonly pipelineParallelSize: number;
  readonly maxBatchedTokens: number | null;
  readonly source: string;
}

function finish(
  options: RunOptions | FitOptions,
  fit: Fit,
  steps: readonly StepSample[],
  facts: EntryFacts,
): void {
  const { model, shape, request, tensorParallelSize, pipelineParallelSize, numBlocks, source } =
    facts;
  const entry: ModelProfile = {
    ...{ model, shape, tensorParallelSize, pipelineParallelSize },
    alignment: fit.alignment,
    ...(facts.maxPieceTokens !== undefined && { maxPieceTokens: facts.maxPieceTokens }),
    prefill: fit.prefill,
    decode: fit.decode,
    ...(request === undefined ? {} : { request }),
    blocks: [{
      memoryUtilization: options.gpuMemoryUtilization,
      blockSize: options.blockSize,
      maxBatchedTokens: facts.maxBatchedTokens,
      numBlocks,
      source,
    }],
    migration: { gbps: options.migrationGbps, source: "--migration-gbps of llumnix profile" },
    swap: { gbps: options.swapGbps, source: "--swap-gbps of llumnix profile" },
  };
  write(options.out, withEntry(options.out, entry));
  console.log(fitText(fit));
  if (request !== undefined) {
    console.log(
      `request: ${request.msPerRequest.toFixed(1)} ms outside of the instance (${request.source})`,
    );
  }
  console.log(
    `${options.out}: ${model}, tp ${tensorParallelSize}, pp ${pipelineParallelSize}, ${numBlocks} ` +
      `blocks of ${options.blockSize} tokens`,
  );
  if (options.html !== null) {
    const report = fitReport(`Latency profile of ${model}`, [source], fit, steps);
    write(options.html, renderReport(report));
  }
}

/** The sizes of a model: of a built-in simulated one, or of its config.json. */
function shapeOf(options: FitOptions, model: string): CacheShape {
  const known = simulatedModels.find(({ name }) => name === nameOf(model).toLowerCase());
  if (known !== undefined) return known.shape;
  const { dtype, maxModelLen } = options;
  const { config, ...found } = resolveModel({ ...engineDefaults(), model, dtype, maxModelLen });
  const { numLayers, numKvHeads, headDim } = config;
  return { dtype: found.dtype, numLayers, numKvHeads, headDim, maxModelLen: found.maxModelLen };
}

/** The last part of a path. */
function nameOf(path: string): string {
  return path.replace(/\/+$/, "").split("/").at(-1)!;
}

function write(path: string, text: string): void {
  try {
    Deno.writeTextFileSync(path, text);
  } catch (error) {
    throw new UsageError(`cannot write ${path}: ${fileProblem(error)}`);
  }
}
