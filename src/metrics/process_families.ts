import process from "node:process";
import { counter, gauge, type MetricFamily } from "./family.ts";

/**
 * Memory, processor time and start of this process, under the names that every exporter uses.
 * @param role "server", "manager", "instance-0"
 */
export function processFamilies(role: string, version: string): MetricFamily[] {
  const { user, system } = process.cpuUsage();
  const labels = { role };
  return [
    gauge("llumnix:build_info", "Always 1; the version is a label.", [
      { labels: { role, version }, value: 1 },
    ]),
    counter("process_cpu_seconds_total", "Processor time of this process.", [
      { labels, value: (user + system) / 1e6 },
    ]),
    gauge("process_resident_memory_bytes", "Physical memory of this process.", [
      { labels, value: Deno.memoryUsage().rss },
    ]),
    gauge("process_start_time_seconds", "When this process started, since the Unix epoch.", [
      { labels, value: performance.timeOrigin / 1000 },
    ]),
  ];
}
