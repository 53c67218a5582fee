/** Every relative link of the documentation leads to a file, and its anchor to a heading of that file. */
import assert from "node:assert/strict";

const root = new URL("../", import.meta.url);

interface Link {
  readonly line: number;
  readonly target: string;
}

/** Documents to check, as paths below the repository's root. */
function documents(): string[] {
  const names = [...Deno.readDirSync(root)].filter(({ isFile }) => isFile).map(({ name }) => name);
  const trees = ["src", "ffi", ".github"].flatMap((tree) => [...filesUnder(tree)]);
  return [...names, ...trees].filter((path) => path.endsWith(".md")).sort();
}

function* filesUnder(directory: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(`${directory}/`, root))) {
    const path = `${directory}/${name}`;
    if (isDirectory) yield* filesUnder(path);
    else yield path;
  }
}

/** The lines of a document, empty where they are code. */
function proseLines(text: string): string[] {
  let fence: string | null = null;
  return text.split("\n").map((line) => {
    const mark = /^ *(`{3,}|~{3,})/.exec(line)?.[1] ?? null;
    if (mark !== null && (fence === null || mark.startsWith(fence))) {
      fence = fence === null ? mark : null;
      return "";
    }
    return fence === null ? line : "";
  });
}

/** Links that stay within the repository. */
function relativeLinks(text: string): Link[] {
  return proseLines(text).flatMap((prose, i) => {
    const withoutCode = prose.replace(/`[^`]*`/g, "code");
    const inline = withoutCode.matchAll(/\]\(([^)\s]+)(?: "[^"]*")?\)/g);
    const defined = withoutCode.matchAll(/^\[[^\]]+\]: (\S+)/g);
    return [...inline, ...defined].map(([, target]) => ({ line: i + 1, target }));
  }).filter(({ target }) => !/^[a-z][a-z0-9+.-]*:/i.test(target));
}

/** Anchors of a document's headings, as GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const line of proseLines(text)) {
    const heading = /^#{1,6} +(.*?) *#*$/.exec(line)?.[1];
    if (heading === undefined) continue;
    const shown = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
    const words = shown.toLowerCase().replace(/[^\p{L}\p{N}\p{M}_ -]/gu, "");
    const base = words.replaceAll(" ", "-");
    let anchor = base;
    for (let number = 1; anchors.has(anchor); number++) anchor = `${base}-${number}`;
    anchors.add(anchor);
  }
  return anchors;
}

/** What is wrong with a link of the document at `from`; null when nothing is. */
function linkProblem(target: string, from: URL): string | null {
  const url = new URL(target, from);
  const anchor = decodeURIComponent(url.hash.slice(1));
  url.hash = "";
  if (!url.href.startsWith(root.href)) return "leads out of the repository";
  let isFile: boolean;
  try {
    isFile = Deno.statSync(url).isFile;
  } catch {
    return "leads to no file";
  }
  if (anchor === "") return null;
  if (!isFile || !url.pathname.endsWith(".md")) return "has an anchor, but leads to no document";
  return anchorsOf(Deno.readTextFileSync(url)).has(anchor) ? null : "names no heading there";
}

Deno.test("documentation: every relative link and anchor leads somewhere", () => {
  const problems: string[] = [];
  let numLinks = 0;
  for (const path of documents()) {
    const from = new URL(path, root);
    for (const { line, target } of relativeLinks(Deno.readTextFileSync(from))) {
      numLinks++;
      const problem = linkProblem(target, from);
      if (problem !== null) problems.push(`${path}:${line}: ${target} ${problem}`);
    }
  }
  assert.deepEqual(problems, []);
  assert.ok(numLinks > 30, `only ${numLinks} links were found`);
});

Deno.test("links in prose are found, in code they are not", () => {
  const text = "[a](b.md#c) [d](https://e.f) `[g](h)`\n```\n[i](j)\n```\n[k]: l.md";
  assert.deepEqual(relativeLinks(text), [
    { line: 1, target: "b.md#c" },
    { line: 5, target: "l.md" },
  ]);
});

Deno.test("anchors are those that GitHub makes of headings", () => {
  const text = "# `--a`: B & c\n## [D](e.md), f_g?\n## Same\n## Same\n```\n# no\n```";
  assert.deepEqual([...anchorsOf(text)], ["--a-b--c", "d-f_g", "same", "same-1"]);
});

Deno.test("links that lead nowhere are named with what is wrong", () => {
  const from = new URL("src/README.md", root);
  assert.equal(linkProblem("nothing.md", from), "leads to no file");
  assert.equal(linkProblem("#no-such-heading", from), "names no heading there");
  assert.equal(linkProblem("../../x", from), "leads out of the repository");
  assert.equal(linkProblem("core", from), null);
});
