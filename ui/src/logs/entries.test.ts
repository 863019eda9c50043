import { describe, expect, test } from 'vitest';
import type { Stream } from '../api';
import { entriesOf, levelNamed, levelOf, mergeEntries, sizeText, traceIdOf } from './entries';
import { addCondition, asksForLines } from './filter';
import { buckets } from './volume';

const none = { labels: {}, metadata: {}, parsed: {}, line: '' };

describe('entries', () => {
  const a: Stream = { stream: { app: 'a' }, values: [['1700000000000000002', 'two', { parsed: { level: 'info' } }], ['1700000000000000001', 'one']] };
  const b: Stream = { stream: { app: 'b' }, values: [['1700000000000000003', 'three'], ['1700000000000000001', 'one'], ['1700000000000000001', 'one']] };
  const entries = entriesOf([a, b]);

  test('one list, newest first, to the nanosecond, equal lines kept', () => {
    expect(entries.map((e) => `${e.labels.app}:${e.line}`)).toEqual(['b:three', 'a:two', 'a:one', 'b:one', 'b:one']);
    expect(entries[1]?.parsed).toEqual({ level: 'info' });
    expect(new Set(entries.map((e) => e.key)).size).toBe(5);
  });

  test('what comes twice stays once, and the newest are kept', () => {
    expect(mergeEntries(entries.slice(0, 3), entries.slice(2))).toEqual(entries);
    expect(mergeEntries(entries, [], 2)).toEqual(entries.slice(0, 2));
  });
});

test.each([
  ['ERROR', 'error'],
  ['err', 'error'],
  ['Warning', 'warning'],
  ['fatal', 'critical'],
  ['notice', 'info'],
  ['dbg', 'debug'],
  ['eleven', 'unknown'],
  [undefined, 'unknown'],
])('level %s', (text, level) => expect(levelNamed(text)).toBe(level));

test.each([
  [{ ...none, labels: { level: 'info' }, parsed: { level: 'error' } }, 'error'],
  [{ ...none, metadata: { severity_text: 'WARN' } }, 'warning'],
  [{ ...none, line: 'ts=1 level=error msg="x"' }, 'error'],
  [{ ...none, line: '{"level":"warn","x":1}' }, 'warning'],
  [{ ...none, line: '2026-11-20 [INFO] started' }, 'info'],
  [{ ...none, line: 'no errors in information' }, 'unknown'],
])('level of %j', (entry, level) => expect(levelOf(entry)).toBe(level));

const ID = '0af7651916cd43dd8448eb211c80319c';
test.each([
  [{ ...none, metadata: { trace_id: ID } }, ID],
  [{ ...none, parsed: { traceID: 'abc123' } }, 'abc123'],
  [{ ...none, line: `msg=x trace_id=${ID} y` }, ID],
  [{ ...none, line: `{"traceId":"${ID}"}` }, ID],
  [{ ...none, line: `trace_id=${'0'.repeat(32)}` }, undefined],
  [{ ...none, line: 'trace_id=<img src=x>' }, undefined],
  [{ ...none, labels: { trace_id: '../../x' } }, undefined],
])('trace of %j', (entry, id) => expect(traceIdOf(entry)).toBe(id));

test.each([
  ['{a="b"}', 'c', 'd', true, true, '{a="b", c="d"}'],
  ['{} |= "}"', 'c', 'd', false, true, '{c!="d"} |= "}"'],
  ['{a="}"} | json', 'c', 'x"y', true, true, '{a="}", c="x\\"y"} | json'],
  ['{a="b"} | json ', 'c', 'd', false, false, '{a="b"} | json | c!="d"'],
])('%s and a condition', (query, name, value, equal, ofStream, expected) => {
  expect(addCondition(query, name, value, equal, ofStream)).toBe(expected);
});

test.each([
  ['{a="b"}', true],
  ['# all\n {a="b"} | json', true],
  ['rate({a="b"}[1m])', false],
  ['sum(rate({a="b"}[1m]))', false],
  ['', false],
])('%j asks for lines: %s', (query, expected) => expect(asksForLines(query)).toBe(expected));

test('buckets are stacked by level', () => {
  const all = buckets([
    { metric: { level: 'ERR' }, values: [[20, '2'], [10, '1']] },
    { metric: { detected_level: 'error' }, values: [[10, '4']] },
    { metric: {}, values: [[10, '5']] },
  ]);
  expect(all).toEqual([
    { endMs: 10_000, counts: { error: 5, unknown: 5 }, total: 10 },
    { endMs: 20_000, counts: { error: 2 }, total: 2 },
  ]);
});

test('sizes have a unit that fits', () => {
  expect([0, 999, 1000, 23_456, 5e6, 7.2e9, 2e16].map(sizeText)).toEqual(
    ['0 B', '999 B', '1.0 kB', '23.5 kB', '5.0 MB', '7.2 GB', '20000.0 TB'],
  );
});
