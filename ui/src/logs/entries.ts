// From streams, as Loki's API groups lines, to one list of entries; what a line's level and trace are.

import type { Labels, Stream } from '../api';

export interface Entry {
  /** Unique and stable: the time, the stream, and which of equal ones it is. */
  key: string;
  ts_ns: bigint;
  line: string;
  /** Of the stream: indexed. */
  labels: Labels;
  /** Structured metadata. */
  metadata: Labels;
  /** What the query's parsers found. */
  parsed: Labels;
}

/** Newest first. Lines of the same nanosecond stay as the server sent them. */
export function entriesOf(streams: Stream[]): Entry[] {
  const entries: Entry[] = [];
  for (const { stream, values } of streams) {
    const name = JSON.stringify(stream);
    const seen = new Map<string, number>();
    for (const [ts, line, categories] of values) {
      const { structuredMetadata: metadata = {}, parsed = {} } = categories ?? {};
      const identity = `${ts} ${name} ${line}`;
      const nth = seen.get(identity) ?? 0;
      seen.set(identity, nth + 1);
      entries.push({ key: `${identity} ${nth}`, ts_ns: BigInt(ts), line, labels: stream, metadata, parsed });
    }
  }
  return entries.sort(newestFirst);
}

const newestFirst = (a: Entry, b: Entry) => (a.ts_ns < b.ts_ns ? 1 : a.ts_ns > b.ts_ns ? -1 : 0);

/** Both lists in one; what is in both stays once. */
export function mergeEntries(a: Entry[], b: Entry[], max = Infinity): Entry[] {
  const keys = new Set(a.map((entry) => entry.key));
  const merged = [...a, ...b.filter((entry) => !keys.has(entry.key))].sort(newestFirst);
  return merged.length > max ? merged.slice(0, max) : merged;
}

export const LEVELS = ['critical', 'error', 'warning', 'info', 'debug', 'trace', 'unknown'] as const;
export type Level = (typeof LEVELS)[number];

const LEVEL_LABELS = ['level', 'detected_level', 'severity', 'severity_text', 'lvl', 'loglevel'];

/** The many spellings of a level. */
export function levelNamed(text: string | undefined): Level {
  const word = (text ?? '').toLowerCase();
  if (/^(crit|fatal|panic|emerg|alert)/.test(word)) return 'critical';
  if (/^(err|e$)/.test(word)) return 'error';
  if (/^(warn|w$)/.test(word)) return 'warning';
  if (/^(inf|notice|i$)/.test(word)) return 'info';
  if (/^(debug|dbg|d$)/.test(word)) return 'debug';
  if (/^(trace|trc)/.test(word)) return 'trace';
  return 'unknown';
}

/** From labels where there is one, else from the beginning of the line. */
export function levelOf({ labels, metadata, parsed, line }: Pick<Entry, 'labels' | 'metadata' | 'parsed' | 'line'>): Level {
  for (const name of LEVEL_LABELS) {
    const level = levelNamed(parsed[name] ?? metadata[name] ?? labels[name]);
    if (level !== 'unknown') return level;
  }
  const start = line.slice(0, 300);
  const named = /\b(?:level|lvl|severity)["']?\s*[=:]\s*["']?(\w+)/i.exec(start)?.[1];
  const bare = /(?:^|[\s[|(<])(FATAL|PANIC|CRITICAL|ERROR|WARN(?:ING)?|INFO|DEBUG|TRACE)(?:$|[\s\]|):>])/.exec(start)?.[1];
  return levelNamed(named ?? bare);
}

const TRACE_LABEL = /^(otel)?_?trace_?id$/i;
const TRACE_IN_LINE = /\btrace_?id["']?\s*[=:]\s*["']?([0-9a-f]{16,32})(?![0-9a-f])/i;

/** The trace a line belongs to, in hex; undefined where it names none. */
export function traceIdOf({ labels, metadata, parsed, line }: Pick<Entry, 'labels' | 'metadata' | 'parsed' | 'line'>) {
  for (const categories of [metadata, parsed, labels]) {
    for (const [name, value] of Object.entries(categories)) {
      if (TRACE_LABEL.test(name) && /^[0-9a-f]{1,32}$/i.test(value) && !/^0*$/.test(value)) return value;
    }
  }
  const found = TRACE_IN_LINE.exec(line)?.[1];
  return found && !/^0+$/.test(found) ? found : undefined;
}

/** Bytes in the largest unit that leaves a number from 1 on. */
export function sizeText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), 0), units.length - 1);
  return `${(bytes / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}
