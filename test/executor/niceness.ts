/** Of this thread: field 19 of proc(5) stat; the second one may hold spaces. */
export function niceness(): number {
  const stat = Deno.readTextFileSync("/proc/thread-self/stat");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19 - 3]);
}
