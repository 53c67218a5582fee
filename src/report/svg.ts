/** Writes SVG elements as text. */

export type Attributes = Readonly<Record<string, string | number | undefined>>;

/** The markup of an element. `children` is markup too. Numbers are rounded to what can be seen. */
export function element(
  name: string,
  attributes: Attributes,
  ...children: readonly string[]
): string {
  const text = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}="${typeof value === "number" ? short(value) : escape(value!)}"`)
    .join("");
  return children.length === 0
    ? `<${name}${text}/>`
    : `<${name}${text}>${children.join("")}</${name}>`;
}

export function short(value: number): string {
  return String(Math.round(value * 10) / 10);
}

export function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
