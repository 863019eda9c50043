import { expect, test } from 'vitest';
import { columns, sampleNumber, shortNumber } from './plot-data';
import { seriesName } from './labels';

test('a gap is a gap, and the server chooses where steps begin', () => {
  const one = { name: 'a', labels: {}, points: [[10.5, '1'], [30.5, 'NaN'], [40.5, '4']] as [number, string][] };
  const { times, rows } = columns([one], 10_000, 45_000, 10);
  expect(times).toEqual([10.5, 20.5, 30.5, 40.5]);
  expect(rows).toEqual([[1, null, null, 4]]);
  expect(columns([], 0, 20_000, 10).times).toEqual([0, 10, 20]);
});

test.each([
  ['1e3', 1000],
  ['NaN', null],
  ['+Inf', null],
  ['-Inf', null],
])('sample %s', (text, value) => expect(sampleNumber(text)).toBe(value));

test.each([
  [0, '0'],
  [1_254_000, '1.254M'],
  [0.12345678, '0.1235'],
  [0.00001, '1.00e-5'],
  [-1500, '-1.5k'],
  [null, '–'],
])('number %s', (value, text) => expect(shortNumber(value)).toBe(text));

test('series are named as Prometheus names them', () => {
  expect(seriesName({ __name__: 'up' })).toBe('up');
  expect(seriesName({ __name__: 'up', job: 'a"b', a: '1' })).toBe('up{a="1", job="a\\"b"}');
  expect(seriesName({})).toBe('{}');
});
