/** A collector that keeps the spans that it gets, as OTLP over HTTP with JSON sends them. */
export interface SinkSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** 2: error. */
  readonly status: { readonly code: number; readonly message?: string };
}

export class OtlpSink implements AsyncDisposable {
  readonly spans: SinkSpan[] = [];
  /** Everything that arrived, as it is. */
  text = "";
  status = 200;
  numRequests = 0;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor() {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      async (request) => {
        this.numRequests++;
        const text = await request.text();
        if (this.status !== 200) return new Response("no", { status: this.status });
        this.text += text;
        for (const { scopeSpans } of JSON.parse(text).resourceSpans) {
          for (const { spans } of scopeSpans) this.spans.push(...spans.map(spanOf));
        }
        return Response.json({});
      },
    );
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/v1/traces`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

// deno-lint-ignore no-explicit-any
function spanOf(span: any): SinkSpan {
  const { traceId, spanId, parentSpanId, name, kind, status } = span;
  return {
    traceId,
    spanId,
    parentSpanId,
    name,
    kind,
    status,
    startMs: Number(span.startTimeUnixNano) / 1e6,
    endMs: Number(span.endTimeUnixNano) / 1e6,
    attributes: Object.fromEntries(
      // deno-lint-ignore no-explicit-any
      span.attributes.map(({ key, value }: any) => [key, Object.values(value)[0]]),
    ),
  };
}
