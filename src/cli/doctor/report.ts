/** What `llumnix doctor` reports. `--json` prints it as it is: fields are added, never renamed. */
import type { DeviceReport, LibraryReport, UcxReport } from "../../../ffi/survey.ts";
import type { KernelSetState } from "../../../ffi/cpu_kernels/load.ts";

export interface DoctorReport {
  /** Raised when a field changes its meaning or goes away. */
  readonly schema: 1;
  readonly version: string;
  readonly host: HostReport;
  readonly driver: DriverReport;
  readonly devices: readonly DeviceReport[];
  readonly libraries: readonly LibraryReport[];
  readonly ucx: readonly UcxFileReport[];
  readonly cpuKernels: readonly KernelSetState[];
  readonly migrationBackends: readonly BackendReport[];
  readonly paths: PathsReport;
  readonly crossover: CrossoverReport;
  /** What keeps `--device cpu` from working here. With one, the exit code is 1. */
  readonly problems: readonly string[];
  /** What keeps a device of this host from being used, and other things to know. */
  readonly notes: readonly string[];
}

export interface HostReport {
  /** CPUs on which this process may run. */
  readonly cpus: number;
  readonly totalBytes: number;
  /** What can be allocated without swapping, the control group's limit included. */
  readonly availableBytes: number;
  /** What the control group leaves; null without a limit. */
  readonly controlGroupFreeBytes: number | null;
}

/** How far CUDA comes up on this host. */
export interface DriverReport {
  readonly state: "ready" | "no driver" | "driver too old" | "no device" | "failed";
  /** The library that was taken: "libcudart" or "libcuda". */
  readonly library: string | null;
  /** Newest version of CUDA that the driver knows: "13.0". */
  readonly driverVersion: string | null;
  /** Version of CUDA of the library. */
  readonly libraryVersion: string | null;
  readonly softwareDevice: boolean;
  /** Why no device can be used; null if one can. */
  readonly reason: string | null;
}

/** A file of UCX with its transports, or why it gave none. */
export interface UcxFileReport extends Partial<UcxReport> {
  readonly path: string;
  readonly failure: string | null;
}

/** Whether a migration backend works with each kind of pool: null, or why it does not. */
export interface BackendReport {
  readonly name: string;
  readonly hostPoolProblem: string | null;
  readonly devicePoolProblem: string | null;
}

/** A way for bytes to go, with its speed both ways. */
export interface PathReport {
  readonly path: string;
  readonly forwardGBps: number | null;
  readonly backGBps: number | null;
  readonly softwareDevice: boolean;
  /** Why it was not measured; null if it was. */
  readonly failure: string | null;
}

export interface PathsReport {
  readonly tookMs: number;
  /** Of one buffer of host memory. */
  readonly bufferBytes: number;
  readonly measured: readonly PathReport[];
}

/** Whether moving a request's KV cache is faster than computing it anew. */
export interface CrossoverReport {
  readonly model: string;
  readonly dtype: string;
  /** Of the KV cache over all layers. */
  readonly bytesPerToken: number;
  /** `--prefill-tokens-per-second`; null if it was not given. */
  readonly prefillTokensPerSecond: number | null;
  readonly paths: readonly {
    readonly path: string;
    /** Tokens whose KV cache the slower direction moves in a second. */
    readonly movedTokensPerSecond: number;
    /** Null without a prefill rate. */
    readonly faster: "move" | "recompute" | null;
  }[];
}
