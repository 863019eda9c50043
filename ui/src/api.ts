// The HTTP APIs this page asks, typed. Everything that comes back is data: it is shown as text, never as HTML.

import { store, stored } from './stored';

export type Labels = Record<string, string>;

/** `[seconds, "value"]`. */
export type Sample = [number, string];

export interface Series {
  metric: Labels;
  value?: Sample;
  values?: Sample[];
}

export type MetricResult =
  | { resultType: 'matrix'; result: Series[] }
  | { resultType: 'vector'; result: Series[] }
  | { resultType: 'scalar'; result: Sample }
  | { resultType: 'string'; result: Sample };

/** `["<ns>", "<line>", categories]`. */
export type LogValue = [string, string, { structuredMetadata?: Labels; parsed?: Labels }?];

export interface Stream {
  stream: Labels;
  values: LogValue[];
}

export interface LogStats {
  summary?: { totalBytesProcessed?: number; totalLinesProcessed?: number; execTime?: number };
}

export type LogResult = ({ resultType: 'streams'; result: Stream[] } | MetricResult) & { stats?: LogStats };

export interface AttributeValue {
  stringValue?: string;
  intValue?: string | number;
  doubleValue?: number | string;
  boolValue?: boolean;
  bytesValue?: string;
  arrayValue?: { values?: AttributeValue[] };
  kvlistValue?: { values?: Attribute[] };
}

export interface Attribute {
  key: string;
  value?: AttributeValue;
}

export interface OtlpEvent {
  timeUnixNano: string;
  name?: string;
  attributes?: Attribute[];
}

export interface OtlpLink {
  traceId: string;
  spanId: string;
  attributes?: Attribute[];
}

export interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name?: string;
  kind?: string | number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes?: Attribute[];
  events?: OtlpEvent[];
  links?: OtlpLink[];
  status?: { code?: string | number; message?: string };
}

export interface ResourceSpans {
  resource?: { attributes?: Attribute[] };
  scopeSpans?: { scope?: { name?: string; version?: string }; spans?: OtlpSpan[] }[];
}

export interface FoundTrace {
  traceID: string;
  rootServiceName?: string;
  rootTraceName?: string;
  startTimeUnixNano?: string;
  durationMs?: number;
  spanSets?: { matched?: number }[];
  serviceStats?: Record<string, { spanCount?: number; errorCount?: number }>;
}

export interface TracesMetric {
  labels: Attribute[];
  samples?: { timestampMs: string; value?: number }[];
}

export interface Roles {
  version: string;
  roles: { role: string; ready: boolean }[];
}

/** An answer with what the server says about it; a partial answer says so in `warnings`. */
export interface Answer<T> {
  data: T;
  warnings: string[];
  infos: string[];
}

/** The server refused or could not be reached; the message is its own. */
export class ApiError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

type Query = Record<string, string | number | undefined>;

/** Longer than this the question goes into the body of a POST, where the API takes one: proxies cut long addresses. */
const ADDRESS_CHARS_MAX = 2000;
const TAKES_POST = /^\/(api|loki\/api)\/v1\/(query|query_range)$/;

export function address(path: string, query: Query = {}): string {
  const given = Object.entries(query).filter((pair): pair is [string, string | number] => pair[1] !== undefined);
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return search ? `${path}?${search}` : path;
}

/** Where multitenancy is on; kept in this browser, never in the address. */
export const tenant = {
  get: () => stored('tenant') ?? '',
  set: (id: string) => store('tenant', id),
};

interface Fetched {
  text: string;
  /** What could not be read, of answers that cannot say so in their JSON: Tempo's. */
  missed: string | null;
}

const fetchText = async (path: string, query: Query, signal?: AbortSignal) =>
  (await fetchAnswer(path, query, signal)).text;

async function fetchAnswer(
  path: string,
  query: Query,
  signal?: AbortSignal,
  given: RequestInit = {},
): Promise<Fetched> {
  let response: Response;
  const headers = new Headers(given.headers);
  if (tenant.get()) headers.set('X-Scope-OrgID', tenant.get());
  const init = { ...given, headers };
  const url = address(path, query);
  try {
    const long = url.length > ADDRESS_CHARS_MAX && TAKES_POST.test(path);
    const body = new URLSearchParams(url.slice(url.indexOf('?') + 1));
    response = await (long ? fetch(path, { ...init, method: 'POST', body, signal }) : fetch(url, { ...init, signal }));
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'the server could not be reached');
  }
  const text = await response.text();
  if (!response.ok) throw new ApiError(response.status, errorText(response, text));
  return { text, missed: response.headers.get('x-triptych-missed') };
}

/** Prometheus answers an error as JSON, Loki and Tempo as plain text. */
function errorText(response: Response, text: string): string {
  try {
    const body = JSON.parse(text) as { error?: string; errorType?: string; message?: string };
    const message = body.error ?? body.message;
    if (message) return body.errorType ? `${body.errorType}: ${message}` : message;
  } catch {
    // Plain text then.
  }
  return text.trim() || `${response.status} ${response.statusText}`;
}

async function fetchJson<T>(path: string, query: Query, signal?: AbortSignal, init?: RequestInit): Promise<T> {
  return parsed(path, (await fetchAnswer(path, query, signal, init)).text);
}

function parsed<T>(path: string, text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new ApiError(200, `${path} did not answer with JSON: ${text.slice(0, 200)}`);
  }
}

interface Envelope<T> {
  data: T;
  warnings?: string[];
  infos?: string[];
}

async function enveloped<T>(path: string, query: Query, signal?: AbortSignal, init?: RequestInit): Promise<Answer<T>> {
  const { data, warnings = [], infos = [] } = await fetchJson<Envelope<T>>(path, query, signal, init);
  return { data, warnings, infos };
}

const seconds = (ms: number) => ms / 1000;
/** Milliseconds to the nanoseconds Loki takes. */
export const toNs = (ms: number) => `${Math.round(ms)}000000`;

export interface Asking {
  startMs: number;
  endMs: number;
  signal?: AbortSignal;
}

export const metrics = {
  range: (query: string, step_s: number, { startMs, endMs, signal }: Asking) =>
    enveloped<MetricResult>(
      '/api/v1/query_range',
      { query, start: seconds(startMs), end: seconds(endMs), step: step_s },
      signal,
    ),
  instant: (query: string, timeMs: number, signal?: AbortSignal) =>
    enveloped<MetricResult>('/api/v1/query', { query, time: seconds(timeMs) }, signal),
  labelNames: ({ startMs, endMs, signal }: Asking, selector?: string) =>
    enveloped<string[]>(
      '/api/v1/labels',
      { start: seconds(startMs), end: seconds(endMs), 'match[]': selector },
      signal,
    ),
  labelValues: (name: string, { startMs, endMs, signal }: Asking, selector?: string) =>
    enveloped<string[]>(
      `/api/v1/label/${encodeURIComponent(name)}/values`,
      { start: seconds(startMs), end: seconds(endMs), 'match[]': selector },
      signal,
    ),
};

const CATEGORIZED: RequestInit = { headers: { 'X-Loki-Response-Encoding-Flags': 'categorize-labels' } };

export const logs = {
  /** `end` is exclusive; either end may be given in nanoseconds. */
  range: (query: string, ends: { start: string; end: string }, limit: number, step_s: number, signal?: AbortSignal) =>
    enveloped<LogResult>('/loki/api/v1/query_range', { query, ...ends, limit, step: step_s }, signal, CATEGORIZED),
  labelNames: ({ startMs, endMs, signal }: Asking) =>
    enveloped<string[] | null>('/loki/api/v1/labels', { start: toNs(startMs), end: toNs(endMs) }, signal),
  labelValues: (name: string, { startMs, endMs, signal }: Asking, selector?: string) =>
    enveloped<string[] | null>(
      `/loki/api/v1/label/${encodeURIComponent(name)}/values`,
      { start: toNs(startMs), end: toNs(endMs), query: selector },
      signal,
    ),
  tailAddress: (query: string, startNs: string, limit: number) => {
    const url = new URL(address('/loki/api/v1/tail', { query, start: startNs, limit }), location.href);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    return url.href;
  },
};

/** An answer of Tempo's: what `data` finds in it, and what could not be read. */
async function tempo<T, D>(path: string, query: Query, data: (body: T) => D, signal?: AbortSignal): Promise<Answer<D>> {
  const { text, missed } = await fetchAnswer(path, query, signal);
  return { data: data(parsed<T>(path, text)), warnings: missed ? [`partial answer: ${missed}`] : [], infos: [] };
}

export const traces = {
  search: (q: string, limit: number, { startMs, endMs, signal }: Asking): Promise<Answer<FoundTrace[]>> => {
    const query = { q, limit, start: Math.floor(seconds(startMs)), end: Math.ceil(seconds(endMs)) };
    return tempo('/api/search', query, (found: { traces?: FoundTrace[] }) => found.traces ?? [], signal);
  },
  /** The second version of the API: the first cannot say that a trace is not whole. */
  byId: (id: string, signal?: AbortSignal): Promise<Answer<ResourceSpans[]>> => {
    const spans = (found: { trace?: { resourceSpans?: ResourceSpans[] } }) => found.trace?.resourceSpans ?? [];
    return tempo(`/api/v2/traces/${encodeURIComponent(id)}`, {}, spans, signal);
  },
  metrics: (q: string, step_s: number, { startMs, endMs, signal }: Asking): Promise<Answer<TracesMetric[]>> => {
    const query = { q, start: Math.floor(seconds(startMs)), end: Math.ceil(seconds(endMs)), step: `${step_s}s` };
    const series = (found: { series?: TracesMetric[] }) => found.series ?? [];
    return tempo('/api/metrics/query_range', query, series, signal);
  },
  tagNames: ({ startMs, endMs, signal }: Asking) =>
    fetchJson<{ scopes?: { name: string; tags?: string[] }[] }>(
      '/api/v2/search/tags',
      { start: Math.floor(seconds(startMs)), end: Math.ceil(seconds(endMs)) },
      signal,
    ),
  tagValues: (tag: string, { startMs, endMs, signal }: Asking) =>
    fetchJson<{ tagValues?: { type: string; value: string }[] }>(
      `/api/v2/search/tag/${encodeURIComponent(tag)}/values`,
      { start: Math.floor(seconds(startMs)), end: Math.ceil(seconds(endMs)) },
      signal,
    ),
};

export const status = {
  roles: (signal?: AbortSignal) => fetchJson<Roles>('/api/ours/roles', {}, signal),
  config: (signal?: AbortSignal) => fetchText('/config', {}, signal),
  ready: async (signal?: AbortSignal) => {
    try {
      return { ready: true, text: await fetchText('/ready', {}, signal) };
    } catch (error) {
      if (error instanceof ApiError) return { ready: false, text: error.message };
      throw error;
    }
  },
};
