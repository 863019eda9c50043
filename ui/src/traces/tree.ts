// From OTLP JSON, as Tempo's API answers a trace, to rows of a waterfall.

import type { Attribute, AttributeValue, OtlpLink, OtlpSpan, ResourceSpans } from '../api';

export interface Event {
  name: string;
  /** After the trace's start. */
  at_ns: number;
  attributes: [string, string][];
}

export interface Link {
  traceId: string;
  spanId: string;
  attributes: [string, string][];
}

export interface TreeSpan {
  /** Hex. */
  id: string;
  parentId: string;
  service: string;
  name: string;
  kind: string;
  isError: boolean;
  statusText: string;
  /** After the trace's start. */
  start_ns: number;
  duration_ns: number;
  depth: number;
  /** Spans below this one, children's children too. */
  descendants: number;
  attributes: [string, string][];
  resource: [string, string][];
  scope: string;
  events: Event[];
  links: Link[];
}

export interface Trace {
  /** Parents before their children, siblings by start. */
  spans: TreeSpan[];
  start_ns: bigint;
  duration_ns: number;
  services: { name: string; spans: number; errors: number }[];
  /** Spans whose parent is not there: the trace may not be whole. */
  orphans: number;
}

type Flat = TreeSpan & { begin: bigint; end: bigint };

export function buildTrace(batches: ResourceSpans[]): Trace {
  const flat = flatten(batches);
  const start = flat.reduce((least, s) => (s.begin < least ? s.begin : least), flat[0]?.begin ?? 0n);
  const end = flat.reduce((most, s) => (s.end > most ? s.end : most), start);
  for (const span of flat) {
    span.start_ns = Number(span.begin - start);
    for (const event of span.events) event.at_ns += span.start_ns;
  }
  const { spans, orphans } = ordered(flat);
  return { spans, start_ns: start, duration_ns: Number(end - start), services: servicesOf(spans), orphans };
}

/** Replicas may bring a span twice: the first one counts. */
function flatten(batches: ResourceSpans[]): Flat[] {
  const byId = new Map<string, Flat>();
  for (const { resource, scopeSpans = [] } of batches) {
    const attributes = pairs(resource?.attributes);
    const service = attributes.find(([key]) => key === 'service.name')?.[1] ?? 'unknown service';
    for (const { scope, spans = [] } of scopeSpans) {
      const scopeText = [scope?.name, scope?.version].filter(Boolean).join(' ');
      for (const span of spans) {
        const made = flatSpan(span, service, attributes, scopeText);
        if (!byId.has(made.id)) byId.set(made.id, made);
      }
    }
  }
  return [...byId.values()];
}

function flatSpan(span: OtlpSpan, service: string, resource: [string, string][], scope: string): Flat {
  const begin = BigInt(span.startTimeUnixNano || '0');
  const given = BigInt(span.endTimeUnixNano || '0');
  const end = given < begin ? begin : given;
  const code = span.status?.code;
  return {
    id: hexId(span.spanId),
    parentId: hexId(span.parentSpanId ?? ''),
    service,
    name: span.name || '(no name)',
    kind: kindText(span.kind),
    isError: code === 'STATUS_CODE_ERROR' || code === 2,
    statusText: span.status?.message ?? '',
    begin,
    end,
    start_ns: 0,
    duration_ns: Number(end - begin),
    depth: 0,
    descendants: 0,
    attributes: pairs(span.attributes),
    resource,
    scope,
    events: (span.events ?? []).map((event) => ({
      name: event.name ?? '',
      at_ns: Number(BigInt(event.timeUnixNano || '0') - begin),
      attributes: pairs(event.attributes),
    })),
    links: (span.links ?? []).map(linkOf),
  };
}

const linkOf = ({ traceId, spanId, attributes }: OtlpLink): Link => ({
  traceId: hexId(traceId),
  spanId: hexId(spanId),
  attributes: pairs(attributes),
});

/** Depth first without recursion: a trace may be deeper than the stack. Spans in a circle become roots. */
function ordered(flat: Flat[]): { spans: TreeSpan[]; orphans: number } {
  const byId = new Map(flat.map((span) => [span.id, span]));
  const children = new Map<string, Flat[]>();
  const roots: Flat[] = [];
  let orphans = 0;
  for (const span of flat) {
    const hasParent = byId.has(span.parentId) && span.parentId !== span.id;
    if (!hasParent) {
      roots.push(span);
      if (span.parentId) orphans++;
      continue;
    }
    const siblings = children.get(span.parentId);
    if (siblings) siblings.push(span);
    else children.set(span.parentId, [span]);
  }
  const spans: Flat[] = [];
  const visited = new Set<string>();
  const walk = (first: Flat) => {
    const stack = [first];
    first.depth = 0;
    for (let span = stack.pop(); span; span = stack.pop()) {
      if (visited.has(span.id)) continue;
      visited.add(span.id);
      spans.push(span);
      const below = (children.get(span.id) ?? []).sort(byStart);
      for (const child of below.toReversed()) {
        if (!visited.has(child.id)) child.depth = span.depth + 1;
        stack.push(child);
      }
    }
  };
  roots.sort(byStart).forEach(walk);
  for (const span of flat) if (!visited.has(span.id)) walk(span);
  countDescendants(spans);
  return { spans, orphans };
}

const byStart = (a: Flat, b: Flat) => a.start_ns - b.start_ns || b.duration_ns - a.duration_ns;

/** A span's descendants are the rows after it that are deeper. */
function countDescendants(spans: TreeSpan[]) {
  const open: { span: TreeSpan; at: number }[] = [];
  const close = (depth: number, at: number) => {
    for (let last = open.at(-1); last && last.span.depth >= depth; last = open.at(-1)) {
      last.span.descendants = at - last.at - 1;
      open.pop();
    }
  };
  spans.forEach((span, at) => {
    close(span.depth, at);
    open.push({ span, at });
  });
  close(0, spans.length);
}

/** Rows that are seen when those spans are folded. */
export function visibleSpans(spans: TreeSpan[], folded: ReadonlySet<string>): TreeSpan[] {
  const visible: TreeSpan[] = [];
  for (let i = 0; i < spans.length; i++) {
    const span = spans[i];
    if (!span) break;
    visible.push(span);
    if (folded.has(span.id)) i += span.descendants;
  }
  return visible;
}

function servicesOf(spans: TreeSpan[]): Trace['services'] {
  const byName = new Map<string, { name: string; spans: number; errors: number }>();
  for (const { service, isError } of spans) {
    const counts = byName.get(service) ?? { name: service, spans: 0, errors: 0 };
    counts.spans++;
    if (isError) counts.errors++;
    byName.set(service, counts);
  }
  return [...byName.values()].sort((a, b) => b.spans - a.spans);
}

/** Ids come in base64; some servers send hex: 16 or 32 hex digits are taken as they are. */
export function hexId(id: string): string {
  if (/^([0-9a-f]{16}|[0-9a-f]{32})$/i.test(id)) return id.toLowerCase();
  try {
    const hex = Array.from(atob(id), (c) => c.charCodeAt(0).toString(16).padStart(2, '0')).join('');
    return /^0*$/.test(hex) ? '' : hex;
  } catch {
    return id;
  }
}

function kindText(kind: string | number | undefined): string {
  const names = ['', 'internal', 'server', 'client', 'producer', 'consumer'];
  if (typeof kind === 'number') return names[kind] ?? '';
  return (kind ?? '').replace('SPAN_KIND_', '').replace('UNSPECIFIED', '').toLowerCase();
}

const pairs = (attributes: Attribute[] = []): [string, string][] =>
  attributes.map(({ key, value }): [string, string] => [key, valueText(value)]).sort(([a], [b]) => (a < b ? -1 : 1));

export function valueText(value: AttributeValue | undefined): string {
  if (value === undefined) return '';
  if (value.arrayValue) return `[${(value.arrayValue.values ?? []).map(valueText).join(', ')}]`;
  if (value.kvlistValue) {
    return `{${(value.kvlistValue.values ?? []).map((a) => `${a.key}: ${valueText(a.value)}`).join(', ')}}`;
  }
  const plain = value.stringValue ?? value.intValue ?? value.doubleValue ?? value.boolValue ?? value.bytesValue;
  return plain === undefined ? '' : String(plain);
}
