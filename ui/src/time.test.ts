import { describe, expect, test } from 'vitest';
import { alignSpan, durationMs, durationText, momentMs, nsToMs, resolveRange, stepSeconds } from './time';

const NOW = Date.UTC(2026, 10, 20, 12);

describe('times', () => {
  test.each([
    ['5m', 300_000],
    ['1h30m', 5_400_000],
    ['1.5s', 1500],
    ['250ms', 250],
    ['1w', 604_800_000],
    ['', undefined],
    ['5', undefined],
    ['m5', undefined],
    ['5m x', undefined],
  ])('duration %s', (text, ms) => expect(durationMs(text)).toBe(ms));

  test.each([
    ['now', NOW],
    ['now-1h', NOW - 3_600_000],
    ['1700000000000', 1_700_000_000_000],
    ['2026-11-20T11:00:00Z', NOW - 3_600_000],
    ['now-', undefined],
    ['now-x', undefined],
    ['yesterday', undefined],
  ])('moment %s', (text, ms) => expect(momentMs(text, NOW)).toBe(ms));

  test('a range says what is wrong with it', () => {
    expect(resolveRange({ from: 'now-5m', to: 'now' }, NOW)).toEqual({ startMs: NOW - 300_000, endMs: NOW });
    expect(() => resolveRange({ from: 'x', to: 'now' }, NOW)).toThrow('"x" is not a time');
    expect(() => resolveRange({ from: 'now', to: 'now' }, NOW)).toThrow('ends before');
  });

  test('steps are round and give few points', () => {
    const hour = { startMs: NOW + 1, endMs: NOW + 3_600_001 };
    expect(stepSeconds(hour, 300)).toBe(15);
    expect(stepSeconds({ startMs: 0, endMs: 1000 }, 300)).toBe(1);
    expect(stepSeconds({ startMs: 0, endMs: 3650 * 86_400_000 }, 300)).toBe(13 * 86_400);
    expect(alignSpan(hour, 15)).toEqual({ startMs: NOW, endMs: NOW + 3_615_000 });
  });

  test.each([
    [0, '0 ns'],
    [1500, '1.50 µs'],
    [12_345_678, '12.3 ms'],
    [2e9, '2.00 s'],
    [119.9e9, '2 m 0 s'],
    [3_661e9, '1 h 1 m'],
  ])('%d ns', (ns, text) => expect(durationText(ns)).toBe(text));

  test('nanoseconds keep their milliseconds', () => {
    expect(nsToMs('1700000000123456789')).toBeCloseTo(1_700_000_000_123.456, 3);
  });
});
