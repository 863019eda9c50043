import { expect, test } from 'vitest';
import { parseRoute, routeHash } from './route';

test('a route comes back as it was written', () => {
  const route = { tab: 'logs' as const, params: { q: '{a="b&c#?%"} |= "ü"', from: 'now-1h' } };
  expect(parseRoute(routeHash(route))).toEqual(route);
});

test.each(['', '#', '#/', '#/nope', '#/nope?q=1'])('%j is the first tab', (hash) => {
  expect(parseRoute(hash).tab).toBe('metrics');
});

test('empty parameters are left out', () => {
  expect(routeHash({ tab: 'status', params: { q: '' } })).toBe('#/status');
});
