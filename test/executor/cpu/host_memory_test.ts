import assert from "node:assert/strict";
import { availableMemoryBytes, freeWithinGroups } from "../../../src/executor/cpu/host_memory.ts";

const reader = (files: Record<string, string>) => (path: string) => files[path] ?? null;

Deno.test("without a control group, or a limit, there is no bound", () => {
  assert.equal(freeWithinGroups(reader({})), Infinity);
  const files = {
    "/proc/self/cgroup": "0::/\n",
    "/sys/fs/cgroup/memory.max": "max\n",
    "/sys/fs/cgroup/memory.current": "1000\n",
  };
  assert.equal(freeWithinGroups(reader(files)), Infinity);
});

Deno.test("cache of files that nobody uses counts as free", () => {
  const files = {
    "/proc/self/cgroup": "0::/\n",
    "/sys/fs/cgroup/memory.max": "5000\n",
    "/sys/fs/cgroup/memory.current": "3000\n",
    "/sys/fs/cgroup/memory.stat": "anon 100\nfile 2700\ninactive_file 2500\nactive_file 200\n",
  };
  assert.equal(freeWithinGroups(reader(files)), 4500);
});

Deno.test("the tightest of the group and those around it counts", () => {
  const files = {
    "/proc/self/cgroup": "12:cpu:/elsewhere\n0::/a.slice/b.scope\n",
    "/sys/fs/cgroup/a.slice/b.scope/memory.max": "max\n",
    "/sys/fs/cgroup/a.slice/b.scope/memory.current": "10\n",
    "/sys/fs/cgroup/a.slice/memory.max": "900\n",
    "/sys/fs/cgroup/a.slice/memory.current": "400\n",
    "/sys/fs/cgroup/memory.max": "9000\n",
    "/sys/fs/cgroup/memory.current": "8000\n",
  };
  assert.equal(freeWithinGroups(reader(files)), 500);
});

Deno.test("control groups of version 1, seen from outside of their namespace", () => {
  const files = {
    "/proc/self/cgroup": "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
    "/sys/fs/cgroup/memory/memory.usage_in_bytes": "4000\n",
    "/sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 700\n",
  };
  assert.equal(freeWithinGroups(reader(files)), 1700);
});

Deno.test("this machine has some memory, and not more than it has", () => {
  const bytes = availableMemoryBytes();
  assert.ok(bytes > 0 && bytes <= Deno.systemMemoryInfo().total, `${bytes}`);
});
