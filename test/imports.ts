/** The imports of a source file, for tests of the code as a whole. */

/** What a file imports: a path as written. */
export interface Specifier {
  readonly path: string;
  /** No code of the other file runs before everything has been loaded. */
  readonly isTypeOnly: boolean;
}

/** Specifiers of static imports, re-exports and dynamic imports with a literal. */
export function importedSpecifiers(code: string): Specifier[] {
  const statements = /^(?:import|export)\b((?:[^;'"`]*?\bfrom)?)\s*["']([^"']+)["']/gm;
  const dynamic = /^(?!\s*(?:\*|\/\/)).*?\bimport\(\s*["']([^"']+)["']/gm;
  return [
    ...[...code.matchAll(statements)].map(([, clause, path]) => ({
      path,
      isTypeOnly: namesOnlyTypes(clause),
    })),
    // A dynamic import runs when everything has been loaded: it closes no circle.
    ...[...code.matchAll(dynamic)].map(([, path]) => ({ path, isTypeOnly: true })),
  ];
}

/** Of what stands between `import` or `export` and the path. */
function namesOnlyTypes(clause: string): boolean {
  if (/^\s*type\b/.test(clause)) return true;
  const names = clause.match(/^\s*\{([^}]*)\}/)?.[1].split(",").filter((name) => name.trim());
  return names !== undefined && names.length > 0 && names.every((name) => /^\s*type\s/.test(name));
}
