import { openBus } from "../src/bus/open_bus.ts";
import { realClock } from "../src/core/clock.ts";
import { MigrationPeers } from "../src/instance/llumlet/migration_peers.ts";
import { HostKvPool } from "../src/kv/pool/host_kv_pool.ts";
import { loadCpuKernels } from "../ffi/cpu_kernels/load.ts";
import { blockBytes } from "../src/kv/layout.ts";
import { RayRpcBackend } from "../src/kv/transfer/rayrpc/rayrpc_backend.ts";
import { GrpcBackend } from "../src/kv/transfer/grpc/grpc_backend.ts";
import { plainCopy } from "../scripts/bench/plain_copy.ts";

const [kind, role, dir] = Deno.args;
const layout = { format: "k-transposed", dtype: "bfloat16", numLayers: 30, numKvHeads: 3, headDim: 64, blockSize: 16 } as const;
const N = 300;
const kernels = await loadCpuKernels({ set: null, threads: 1 });
const bytes = N * blockBytes(layout as any);
const at = kernels.alloc(bytes);
kernels.bytes(at, bytes).fill(role === "dst" ? 2 : 1);
const pool = new HostKvPool(at, layout as any, N);
const bus = openBus();
const links = new MigrationPeers(bus, realClock, () => {});
const limits = { bufferBlocks: 512, numLayers: 1 };
const instanceId = role;
const backend = kind === "rayrpc" ? new RayRpcBackend({ pool, limits, clock: realClock, links } as any)
 : GrpcBackend.open({ instanceId, model: "m", pool, limits, clock: realClock, listenAt: { hostname: "127.0.0.1", port: 0 }, advertisedHost: "127.0.0.1", security: null, initTimeoutMs: 5000 });
const all = Array.from({ length: N }, (_, i) => i);
if (role === "dst") {
  const l = await bus.listen(`unix:${dir}/d.sock`, { calls: (backend as any).calls ?? {} });
  await backend.grant("m", all);
  if (kind === "grpc") await (backend as GrpcBackend).join({ secret: "s", members: [] } as any);
  console.log(JSON.stringify(backend.endpoint));
  await new Promise(() => {});
} else {
  const d = await Deno.makeTempDir();
  const child = new Deno.Command(Deno.execPath(), { args: ["run", "-A", "--no-check", import.meta.filename!, kind, "dst", d], stdout: "piped" }).spawn();
  const line = new TextDecoder().decode((await child.stdout.getReader().read()).value);
  const endpoint = JSON.parse(line);
  if (kind === "grpc") await (backend as GrpcBackend).join({ secret: "s", members: [] } as any);
  console.error("pids", Deno.pid, child.pid);
  const cpuOf = (pid: number) => { const f = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/stat`).split(") ")[1].split(" "); return [Number(f[11]) * 10, Number(f[12]) * 10]; };
  let wall = 0; const cpu = [0, 0, 0, 0];
  const times: number[] = [], tcp: number[] = [];
  const rounds = Number(Deno.env.get("ROUNDS") ?? 14);
  for (let i = 0; i < rounds; i++) {
    const c0 = [...cpuOf(Deno.pid), ...cpuOf(child.pid)], w0 = performance.now();
    const s = await backend.send({ migrationId: "m", destination: { instanceId: "dst", address: `unix:${d}/d.sock` }, endpoint, sourceBlocks: all.slice(0, 269), destinationBlocks: all.slice(0, 269).reverse(), deadlineMs: realClock.nowMs() + 20000 } as any, new AbortController().signal);
    wall += performance.now() - w0; [...cpuOf(Deno.pid), ...cpuOf(child.pid)].forEach((v, k) => cpu[k] += v - c0[k]);
    times.push(s.bytes / s.transferMs / 1e6);
    if (i % 4 === 0 && rounds < 50) tcp.push(await plainCopy(1 << 29));
  }
  console.log("cpu% src user/sys", cpu.map((v) => (100 * v / wall).toFixed(0)).join(" "), "(dst user/sys last two)");
  times.sort((a, b) => a - b); tcp.sort((a, b) => a - b);
  console.log(kind, "GB/s", times[times.length >> 1].toFixed(2), "max", times.at(-1)!.toFixed(2), "tcp", tcp[tcp.length >> 1]?.toFixed(2), "ratio", (times[times.length >> 1] / tcp[tcp.length >> 1]).toFixed(2));
  child.kill("SIGKILL"); Deno.exit(0);
}
