import { describe, expect, test } from 'vitest';
import { escapedValue, ranked, spotAt } from './complete';

/** `|` in the text is the cursor. */
function spot(text: string) {
  const cursor = text.lastIndexOf('|');
  return spotAt(text.slice(0, cursor) + text.slice(cursor + 1), cursor);
}

describe('what can stand at the cursor', () => {
  test.each([
    ['ra|', { kind: 'name', word: 'ra', from: 0 }],
    ['rate(http_re|[5m])', { kind: 'name', word: 'http_re', from: 5 }],
    ['up{jo|}', { kind: 'label', word: 'jo', from: 3, metric: 'up' }],
    ['up{a="}", jo|', { kind: 'label', word: 'jo', from: 10, metric: 'up' }],
    ['up{job="no|"}', { kind: 'value', word: 'no', from: 8, label: 'job', metric: 'up' }],
    ['{service_name=~"che|', { kind: 'value', word: 'che', from: 16, label: 'service_name' }],
    ['{ resource.service.name = "x|', { kind: 'value', word: 'x', from: 27, label: 'resource.service.name' }],
    ['{ span.ht|', { kind: 'label', word: 'span.ht', from: 2 }],
    ['{a="b"} |= "err|', undefined],
    ['rate(x[5m|', undefined],
  ])('%s', (text, expected) => expect(spot(text)).toEqual(expected));

  test('what begins with the word comes first', () => {
    expect(ranked(['go_up', 'up', 'upper', 'UP_x'], 'up', 3)).toEqual(['upper', 'UP_x', 'go_up']);
  });

  test('a value cannot leave its quotes', () => {
    expect(escapedValue('a"b\\c\nd')).toBe('a\\"b\\\\c\\nd');
  });
});
