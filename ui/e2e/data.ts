// Writes what the tests look for, through the doors everybody uses: OTLP for metrics and traces, Loki's push for logs.

const SECOND_NS = 1_000_000_000n;

/** Runs if a page ever takes it for HTML. */
export const HOSTILE = '<img src=x onerror="window.hacked=true">';

export interface Written {
  /** In every name, so that a run finds its own data alone. */
  run: string;
  metric: string;
  service: string;
  traceId: string;
}

const attribute = (key: string, stringValue: string) => ({ key, value: { stringValue } });

export async function writeData(url: string): Promise<Written> {
  const run = Date.now().toString(36);
  const service = `shop-${run}`;
  const traceId = crypto.randomUUID().replaceAll('-', '');
  const written = { run, metric: `orders_${run}`, service, traceId };
  await post(`${url}/v1/traces`, tracesBody(written));
  await post(`${url}/loki/api/v1/push`, logsBody(written));
  await post(`${url}/v1/metrics`, metricsBody(written));
  return written;
}

async function post(url: string, body: unknown) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${url}: ${response.status} ${await response.text()}`);
}

const nowNs = () => BigInt(Date.now()) * 1_000_000n;

/** One gauge with a hostile label, a point every 15 s for ten minutes. */
function metricsBody({ metric, service }: Written) {
  const now = nowNs();
  const point = (region: string, i: number) => ({
    timeUnixNano: String(now - BigInt(i) * 15n * SECOND_NS),
    asDouble: 50 + 40 * Math.sin(i / 6) + region.length,
    attributes: [attribute('region', region)],
  });
  const dataPoints = [HOSTILE, 'north'].flatMap((region) => Array.from({ length: 41 }, (_, i) => point(region, 40 - i)));
  return {
    resourceMetrics: [
      {
        resource: { attributes: [attribute('service.name', service)] },
        scopeMetrics: [{ metrics: [{ name: metric, gauge: { dataPoints } }] }],
      },
    ],
  };
}

const LEVELS = ['info', 'info', 'debug', 'info', 'warn', 'info', 'info', 'error'];

/** 240 lines over eight minutes; some carry the trace's id, one is hostile. */
function logsBody({ service, traceId }: Written) {
  const now = nowNs();
  const values = Array.from({ length: 240 }, (_, i) => {
    const level = LEVELS[i % LEVELS.length] ?? 'info';
    const line = i === 239 ? `level=error msg=${HOSTILE}` : `level=${level} msg="order ${i} accepted" took=${i % 90}ms`;
    const metadata: Record<string, string> = level === 'error' ? { trace_id: traceId, note: HOSTILE } : {};
    return [String(now - BigInt(240 - i) * 2n * SECOND_NS), line, metadata];
  });
  return { streams: [{ stream: { service_name: service, env: 'test' }, values }] };
}

/** A request through three services, with an error in the last one. */
function tracesBody({ service, traceId }: Written) {
  const start = nowNs() - 30n * SECOND_NS;
  const at = (ms: number) => String(start + BigInt(ms) * 1_000_000n);
  const id = (n: number) => n.toString(16).padStart(16, '0');
  const span = (n: number, parent: number, name: string, kind: number, from: number, to: number, more: object = {}) => ({
    traceId,
    spanId: id(n),
    ...(parent ? { parentSpanId: id(parent) } : {}),
    name,
    kind,
    startTimeUnixNano: at(from),
    endTimeUnixNano: at(to),
    ...more,
  });
  const of = (name: string, ...spans: object[]) => ({
    resource: { attributes: [attribute('service.name', name), attribute('host.name', 'node-1')] },
    scopeSpans: [{ scope: { name: 'e2e', version: '1' }, spans }],
  });
  return {
    resourceSpans: [
      of(
        service,
        span(1, 0, 'GET /checkout', 2, 0, 420, { attributes: [attribute('http.route', '/checkout'), attribute('note', HOSTILE)] }),
        span(2, 1, 'load cart', 1, 12, 90),
        span(3, 1, 'POST /pay', 3, 95, 400),
      ),
      of(`${service}-cart`, span(4, 2, 'SELECT cart', 3, 20, 80, { attributes: [attribute('db.system', 'postgresql')] })),
      of(
        `${service}-pay`,
        span(5, 3, 'POST /pay', 2, 110, 390, {
          status: { code: 2, message: 'card refused' },
          events: [{ timeUnixNano: at(300), name: 'exception', attributes: [attribute('exception.message', HOSTILE)] }],
        }),
        ...Array.from({ length: 20 }, (_, i) => span(10 + i, 5, `try ${i}`, 1, 115 + i * 13, 125 + i * 13)),
      ),
    ],
  };
}
