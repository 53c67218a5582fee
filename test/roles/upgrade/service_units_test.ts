import assert from "node:assert/strict";
import { join } from "node:path";
import { serviceUnits } from "../../../src/roles/upgrade/service_units.ts";

Deno.test("service units: the host's services that run llumnix, and what upgrades them", () => {
  const proc = Deno.makeTempDirSync();
  const processes: [comm: string, cgroup: string, command: string][] = [
    ["llumnix", "0::/system.slice/llumnix.service", "/bin/llumnix serve --port 1"],
    ["llumnix", "0::/system.slice/llumnix.service", "/bin/llumnix instance --instance-id a"],
    ["llumnix", "0::/system.slice/system-llumnix.slice/llumnix@2.service", "/bin/llumnix instance"],
    ["llumnix", "4:cpu:/x\n1:name=systemd:/system.slice/old.service\n", "/bin/llumnix manager"],
    ["llumnix", "0::/user.slice/user-1.slice/user@1.service/app.slice/l.service", "llumnix serve"],
    ["llumnix", "0::/user.slice/user-1.slice/session-2.scope", "llumnix serve"],
    ["llumnix", "0::/system.slice/agent.service", "/bin/llumnix agent"],
    ["llumnix", "0::/system.slice/agent.service", "/bin/llumnix instance --instance-id b"],
    ["nginx", "0::/system.slice/nginx.service", "nginx"],
    ["llumnix", "", ""],
  ];
  try {
    for (const [i, [comm, cgroup, command]] of processes.entries()) {
      const directory = join(proc, `${i + 10}`);
      Deno.mkdirSync(directory);
      Deno.writeTextFileSync(join(directory, "comm"), `${comm}\n`);
      Deno.writeTextFileSync(join(directory, "cgroup"), cgroup);
      Deno.writeTextFileSync(join(directory, "cmdline"), command.replaceAll(" ", "\0"));
    }
    Deno.mkdirSync(join(proc, "99")); // it has ended
    Deno.mkdirSync(join(proc, "self"));
    assert.deepEqual(serviceUnits(proc), [
      { name: "agent.service", command: "systemctl reload agent.service" },
      { name: "llumnix.service", command: "systemctl reload llumnix.service" },
      { name: "llumnix@2.service", command: "systemctl restart llumnix@2.service" },
      { name: "old.service", command: "systemctl reload old.service" },
    ]);
    assert.deepEqual(serviceUnits(join(proc, "none")), []);
  } finally {
    Deno.removeSync(proc, { recursive: true });
  }
});
