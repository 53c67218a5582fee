/** What names and IP addresses of hosts stand for. */

/** Whether a host is this host itself, out of reach of all others. */
export function isLoopback(host: string): boolean {
  return /^(?:localhost|127\.\d+\.\d+\.\d+|::1|::ffff:127\.\d+\.\d+\.\d+)$/i.test(host);
}

/** Whether a host stands for all addresses of the host that listens there: others cannot connect to it. */
export function isUnspecified(host: string): boolean {
  return /^(?:::ffff:)?[0.:]+$/i.test(host);
}
