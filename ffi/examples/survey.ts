/** What this host has: libraries with versions and paths, devices, transports of UCX. */
import {
  libraries,
  NoDriverError,
  openCuda,
  surveyDevices,
  surveyLibrary,
  surveyUcx,
} from "deno-ffi-cuda";

for (const key of Object.keys(libraries) as (keyof typeof libraries)[]) {
  const { name, version, path, softwareDevice } = surveyLibrary(key);
  const label = softwareDevice ? " (software device, no GPU)" : "";
  console.log(path === null ? `${name}: none` : `${name}: ${version ?? "?"} at ${path}${label}`);
  if (key !== "ucp" || path === null) continue;
  const { memoryTypes, devices } = surveyUcx({ from: path });
  const transports = new Set(devices.map(({ transport }) => transport));
  console.log(`  memory: ${memoryTypes.join(", ")}; transports: ${[...transports].join(", ")}`);
}

try {
  for (const device of surveyDevices(openCuda())) {
    const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
    console.log(
      `device ${device.ordinal}: ${device.name}, sm_${device.computeCapability.join("")}, ` +
        `${gib(device.freeBytes)} of ${gib(device.totalBytes)} GiB free, ` +
        `peers: ${device.peers.join(", ") || "none"}`,
    );
  }
} catch (error) {
  if (!(error instanceof NoDriverError)) throw error;
  console.log("devices: none, for want of a driver");
}
