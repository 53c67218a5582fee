import type { Template } from "@huggingface/jinja";

/**
 * Python's `strip(characters)`, `lstrip` and `rstrip`. The methods of @huggingface/jinja ignore their
 * argument and strip all white space; Qwen3's template, for one, strips only line breaks.
 */
const methods: ReadonlyMap<string, (text: unknown, characters: unknown) => string> = new Map([
  ["strip", (text, characters) => strip(text, characters, true, true)],
  ["lstrip", (text, characters) => strip(text, characters, true, false)],
  ["rstrip", (text, characters) => strip(text, characters, false, true)],
]);

/** Functions that a template changed by {@linkcode rewriteStripCalls} needs among its variables. */
export const stripFunctions: Readonly<Record<string, unknown>> = Object.fromEntries(
  [...methods].map(([name, method]) => [functionName(name), method]),
);

/** Turns each call `x.lstrip(characters)` into a call of a function that heeds the characters. */
export function rewriteStripCalls(template: Template): void {
  rewrite(template.parsed);
}

interface Node {
  type?: string;
  value?: unknown;
  callee?: Node;
  object?: Node;
  property?: Node;
  args?: Node[];
}

function rewrite(node: unknown): void {
  if (node === null || typeof node !== "object") return;
  for (const child of Object.values(node)) rewrite(child);
  const call = node as Node;
  if (call.type !== "CallExpression" || call.callee?.type !== "MemberExpression") return;
  const { object, property } = call.callee;
  if (call.args?.length !== 1 || typeof property?.value !== "string") return;
  if (!methods.has(property.value)) return;
  call.args.unshift(object!);
  call.callee = { type: "Identifier", value: functionName(property.value) };
}

function functionName(method: string): string {
  return `__${method}_characters`;
}

function strip(text: unknown, characters: unknown, left: boolean, right: boolean): string {
  if (typeof text !== "string") throw new Error("strip() of a value that is not text");
  if (typeof characters !== "string") return stripSpace(text, left, right);
  const set = new Set(characters);
  const all = [...text];
  let start = 0, end = all.length;
  while (left && start < end && set.has(all[start])) start++;
  while (right && end > start && set.has(all[end - 1])) end--;
  return all.slice(start, end).join("");
}

function stripSpace(text: string, left: boolean, right: boolean): string {
  const started = left ? text.trimStart() : text;
  return right ? started.trimEnd() : started;
}
