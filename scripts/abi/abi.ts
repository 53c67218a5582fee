/** What headers and bindings are compared by: sizes of parameters, offsets of fields, constants. */

/** Offsets of a struct's fields by their names in C, and its size where the bindings rely on it. */
export interface StructLayout {
  readonly size?: number;
  readonly fields: Readonly<Record<string, number>>;
}

/** What a library's header says, or what the bindings take it to say. */
export interface Abi {
  /** `signatureText` of each function. */
  readonly functions: Readonly<Record<string, string>>;
  readonly structs: Readonly<Record<string, StructLayout>>;
  readonly constants: Readonly<Record<string, number>>;
}

const sizes: Readonly<Record<string, string>> = {
  void: "0",
  ...{ u8: "1", i8: "1", u16: "2", i16: "2", u32: "4", i32: "4" },
  ...{ u64: "8", i64: "8", usize: "8", isize: "8", pointer: "8", buffer: "8", function: "8" },
  ...{ f32: "f4", f64: "f8" },
};

/**
 * A signature by the sizes of its result and parameters: "4(8,s64,4)". "f4" is a float, "s64" a struct
 * by value, everything else goes in integer registers.
 */
export function signatureText(definition: Deno.ForeignFunction): string {
  const parameters = definition.parameters.map(sizeText).join(",");
  return `${sizeText(definition.result)}(${parameters})`;
}

function sizeText(type: Deno.NativeResultType): string {
  if (typeof type === "object" && "struct" in type) {
    const bytes = type.struct.reduce((sum, field) => sum + Number(sizeText(field)), 0);
    return `s${bytes}`;
  }
  const text = sizes[type as string];
  if (text === undefined) throw new TypeError(`no size of the FFI type ${JSON.stringify(type)}`);
  return text;
}

/** The functions of a table of symbols under their names in C. */
export function functionsOf(...tables: readonly Deno.ForeignLibraryInterface[]) {
  const functions: Record<string, Deno.ForeignFunction[]> = {};
  for (const [key, symbol] of tables.flatMap(Object.entries)) {
    if ("parameters" in symbol) (functions[symbol.name ?? key] ??= []).push(symbol);
  }
  return functions;
}

/** Where `found`, of a header, contradicts `expected`, of the bindings: a line each. */
export function differences(expected: Abi, found: Abi): string[] {
  const lines: string[] = [];
  const compare = (what: string, ours: unknown, theirs: unknown) => {
    if (ours !== theirs) lines.push(`${what}: the bindings have ${ours}, the header ${theirs}`);
  };
  for (const [name, signature] of Object.entries(found.functions)) {
    compare(name, expected.functions[name], signature);
  }
  for (const [name, struct] of Object.entries(found.structs)) {
    const ours = expected.structs[name];
    if (ours?.size !== undefined) compare(`sizeof(${name})`, ours.size, struct.size);
    for (const [field, offset] of Object.entries(struct.fields)) {
      compare(`offsetof(${name}, ${field})`, ours?.fields[field], offset);
    }
  }
  for (const [name, value] of Object.entries(found.constants)) {
    compare(name, expected.constants[name], value);
  }
  return lines;
}
