import assert from "node:assert/strict";
import {
  chooseHost,
  describeNoRoom,
  type HostRoom,
} from "../../../src/manager/agents/placement.ts";

const host = (name: string, instances: number, slots: number, more: Partial<HostRoom> = {}) => ({
  ...{ name, instances, slots, hasFailed: false, memoryBytes: 1e9 },
  ...more,
});
const chosen = (...hosts: HostRoom[]) => chooseHost(hosts)?.name;

Deno.test("placement: the fewest instances, then the most free slots, then the most memory", () => {
  assert.equal(chosen(host("a", 1, 8), host("b", 0, 1)), "b");
  assert.equal(chosen(host("a", 1, 2), host("b", 1, 4)), "b");
  assert.equal(chosen(host("a", 1, 2), host("b", 1, 2, { memoryBytes: 2e9 })), "b");
  assert.equal(chosen(host("b", 1, 2), host("a", 1, 2)), "a");
});

Deno.test("placement: a host without a free slot gets nothing, one that has just failed comes last", () => {
  assert.equal(chosen(host("a", 1, 1), host("b", 3, 4)), "b");
  assert.equal(chosen(host("a", 2, 1)), undefined);
  assert.equal(chosen(host("a", 0, 1, { hasFailed: true }), host("b", 3, 4)), "b");
  assert.equal(chosen(host("a", 0, 1, { hasFailed: true }), host("b", 4, 4)), "a");
});

Deno.test("placement: says what each host has", () => {
  assert.match(describeNoRoom([], [], []), /no agent has joined. Start one on each host/);
  const text = describeNoRoom([host("a", 1, 1), host("b", 2, 2)], ["c"], ["d"]);
  assert.match(text, /\(a has 1 of 1, b has 2 of 2, d is drained, the agent of c is away\)/);
  const many = describeNoRoom(Array.from({ length: 99 }, (_, i) => host(`h${i}`, 1, 1)), [], []);
  assert.match(many, /h7 has 1 of 1, 91 more\)/);
});
