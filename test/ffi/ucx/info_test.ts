import assert from "node:assert/strict";
import { devicesOf, lanesOf } from "../../../ffi/ucx/info.ts";

Deno.test("transports are read from what UCX prints of a context", () => {
  const info = `#
# UCP context
#
#     component 0  :  self
#            md 4  :  component 4  cma
#
#      resource 0  :  md 0  dev 0  flags -- self/memory0
#      resource 1  :  md 1  dev 1  flags -- tcp/eth0
#      resource 2  :  md 6  dev 4  flags -- rc_mlx5/mlx5_0:1
#      resource 3  :  md 7  dev 5  flags a- cuda_ipc/cuda
#
`;
  assert.deepEqual(devicesOf(info), [
    { transport: "self", device: "memory0" },
    { transport: "tcp", device: "eth0" },
    { transport: "rc_mlx5", device: "mlx5_0:1" },
    { transport: "cuda_ipc", device: "cuda" },
  ]);
  assert.deepEqual(devicesOf(""), []);
});

Deno.test("lanes are read from what UCX 1.22 and 1.13 print of an endpoint", () => {
  const of22 = `#
#               peer: <no debug data>
#                 lane[0]:  0:self/memory.0 md[0]           -> md[0]/self/sysdev[255] seg 4294967295 am rkey_ptr
#                 lane[1]:  5:rc_mlx5/mlx5_0:1.0 md[4]      -> md[4]/ib/sysdev[255] seg 8256 rma_bw#0 am
`;
  assert.deepEqual(lanesOf(of22), [
    { transport: "self", device: "memory", uses: ["am", "rkey_ptr"] },
    { transport: "rc_mlx5", device: "mlx5_0:1", uses: ["rma_bw", "am"] },
  ]);
  const of13 = `#
#                 lane[0]:  1:tcp/lo.0 md[1]          -> md[1]/tcp/sysdev[255] am am_bw#0 rma_bw#0
#                 lane[1]:  3:sysv/memory.0 md[2]           -> md[2]/sysv/sysdev[255]
#
#                  put[0]: 0..<short>..4294967296..<bcopy>..(inf)
#                  rma_bw: mds #
`;
  assert.deepEqual(lanesOf(of13), [
    { transport: "tcp", device: "lo", uses: ["am", "am_bw", "rma_bw"] },
    { transport: "sysv", device: "memory", uses: [] },
  ]);
});
