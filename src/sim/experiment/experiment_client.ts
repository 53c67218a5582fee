import type { Address, Bus, Peer, Service } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import { LlumnixError } from "../../core/errors.ts";
import type { DispatchRequest } from "../../core/protocol/dispatch.ts";
import type { GenerateRequest, InstanceId, SamplingParams } from "../../core/protocol/generate.ts";
import type { InstanceList } from "../../core/protocol/membership.ts";
import { samplingDefaults } from "../../core/sampling.ts";
import type { WorkloadRequest } from "../../workload/request.ts";
import type { RequestRecorder } from "./request_recorder.ts";

const FRONTEND_ID = "client";

/** Parameters that all requests share: each generates exactly as many tokens as the workload says. */
const params: Omit<SamplingParams, "maxTokens" | "seed"> = {
  ...samplingDefaults,
  temperature: 0,
  eosTokenIds: [],
  ignoreEos: true,
};

export interface ExperimentClientArgs {
  readonly bus: Bus;
  readonly managerAddress: Address;
  readonly clock: Clock;
  readonly recorder: RequestRecorder;
  /** Time from a request's arrival until it is dispatched. */
  readonly requestMs: number;
  /** All requests are sent with normal priority. */
  readonly ignorePriorities: boolean;
}

/**
 * All users of a cluster. Sends requests as an API server does, and hands their tokens to the recorder.
 * Nothing fails in an experiment, so an API server's handling of failures is left out.
 */
export class ExperimentClient {
  readonly #args: ExperimentClientArgs;
  readonly #links = new Map<InstanceId, Promise<Peer>>();
  #addresses: ReadonlyMap<InstanceId, Address> = new Map();
  #manager!: Peer;

  constructor(args: ExperimentClientArgs) {
    this.#args = args;
  }

  async connect(): Promise<void> {
    const { bus, managerAddress } = this.#args;
    this.#manager = await bus.connect(managerAddress, {
      notifications: { instances: ({ data }) => this.#setInstances(data) },
    });
    await this.#manager.call("subscribe", { data: null });
    await Promise.all([...this.#addresses.keys()].map((id) => this.#link(id)));
  }

  /** Sends a request now. */
  submit(request: WorkloadRequest): void {
    const { clock, recorder, requestMs } = this.#args;
    const arrivalMs = clock.nowMs();
    const number = recorder.arrived(request, arrivalMs);
    const dispatch = () =>
      this.#generate(number, request, arrivalMs).catch((error) => {
        if (!(error instanceof LlumnixError)) throw error;
        recorder.refused(number, error.message);
      });
    if (requestMs === 0) dispatch();
    else clock.after(requestMs, dispatch);
  }

  async #generate(number: number, request: WorkloadRequest, arrivalMs: number): Promise<void> {
    const { promptTokens, outputTokens } = request;
    const priority = this.#args.ignorePriorities ? "normal" : request.priority;
    const requestId = String(number);
    const dispatch: DispatchRequest = { requestId, promptTokens, priority };
    const { data } = await this.#manager.call("dispatch", { data: dispatch });
    const { instanceId, expectedSteps } = data;
    const link = await this.#link(instanceId);
    const generate: GenerateRequest = {
      requestId,
      frontendId: FRONTEND_ID,
      promptTokenIds: new Array(promptTokens).fill(0),
      outputTokenIds: [],
      params: { ...params, maxTokens: outputTokens, seed: number },
      arrivalMs,
      priority,
      expectedSteps,
    };
    await link.call("generate", { data: generate });
  }

  #setInstances({ instances }: InstanceList): void {
    this.#addresses = new Map(instances.map((one) => [one.instanceId, one.address]));
    for (const instanceId of this.#links.keys()) {
      if (!this.#addresses.has(instanceId)) this.#links.delete(instanceId);
    }
    for (const instanceId of this.#addresses.keys()) this.#link(instanceId);
  }

  #link(instanceId: InstanceId): Promise<Peer> {
    let link = this.#links.get(instanceId);
    if (!link) this.#links.set(instanceId, link = this.#connect(instanceId));
    return link;
  }

  async #connect(instanceId: InstanceId): Promise<Peer> {
    const { bus, clock, recorder } = this.#args;
    const service: Service = {
      notifications: {
        outputs: ({ data }) => recorder.take(data.outputs, clock.nowMs()),
      },
    };
    const peer = await bus.connect(this.#addresses.get(instanceId)!, service);
    await peer.call("hello", { data: { frontendId: FRONTEND_ID } });
    return peer;
  }
}
