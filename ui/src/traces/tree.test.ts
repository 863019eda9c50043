import { describe, expect, test } from 'vitest';
import type { OtlpSpan, ResourceSpans } from '../api';
import { buildTrace, hexId, valueText, visibleSpans } from './tree';

const START = 1_700_000_000_000_000_000n;

/** Ids are small numbers; times are nanoseconds after the start. */
function span(id: number, parent: number, from: number, to: number, more: Partial<OtlpSpan> = {}): OtlpSpan {
  const base64 = (n: number) => (n === 0 ? '' : btoa(String.fromCharCode(0, 0, 0, 0, 0, 0, 0, n)));
  return {
    traceId: '',
    spanId: base64(id),
    parentSpanId: base64(parent),
    name: `span ${id}`,
    startTimeUnixNano: String(START + BigInt(from)),
    endTimeUnixNano: String(START + BigInt(to)),
    ...more,
  };
}

function batch(service: string, ...spans: OtlpSpan[]): ResourceSpans {
  return {
    resource: { attributes: [{ key: 'service.name', value: { stringValue: service } }] },
    scopeSpans: [{ scope: { name: 'lib', version: '1' }, spans }],
  };
}

const drawn = (batches: ResourceSpans[]) => buildTrace(batches).spans.map((s) => `${'-'.repeat(s.depth)}${s.name}`);

describe('tree', () => {
  test('parents before children, siblings by start, over services', () => {
    const batches = [batch('b', span(3, 1, 50, 60), span(4, 3, 51, 52)), batch('a', span(2, 1, 10, 20), span(1, 0, 0, 100))];
    expect(drawn(batches)).toEqual(['span 1', '-span 2', '-span 3', '--span 4']);
    const trace = buildTrace(batches);
    expect([trace.start_ns, trace.duration_ns, trace.orphans]).toEqual([START, 100, 0]);
    expect(trace.spans.map((s) => s.descendants)).toEqual([3, 0, 1, 0]);
    expect(trace.spans[2]).toMatchObject({ service: 'b', start_ns: 50, duration_ns: 10, scope: 'lib 1' });
    expect(trace.services).toEqual([{ name: 'a', spans: 2, errors: 0 }, { name: 'b', spans: 2, errors: 0 }]);
    expect(visibleSpans(trace.spans, new Set(['0000000000000003'])).map((s) => s.name)).toEqual(['span 1', 'span 2', 'span 3']);
  });

  test('orphans are roots and are counted', () => {
    expect(drawn([batch('a', span(5, 9, 5, 6), span(1, 0, 0, 10))])).toEqual(['span 1', 'span 5']);
    expect(buildTrace([batch('a', span(5, 9, 5, 6))]).orphans).toBe(1);
  });

  test('circles, own parents and copies do not hang it', () => {
    expect(drawn([batch('a', span(1, 2, 0, 1), span(2, 1, 1, 2), span(3, 3, 2, 3), span(3, 3, 2, 3))])).toHaveLength(3);
  });

  test('a span that ends before it starts has no length', () => {
    expect(buildTrace([batch('a', span(1, 0, 10, 0))]).duration_ns).toBe(0);
  });

  test('ten thousand spans in a chain', () => {
    const hex = (n: number) => n.toString(16).padStart(16, '0');
    const chain = Array.from({ length: 10_000 }, (_, i) => span(1, 0, i, i + 1, { spanId: hex(i + 1), parentSpanId: i ? hex(i) : '' }));
    const { spans } = buildTrace([batch('a', ...chain)]);
    expect([spans.length, spans.at(-1)?.depth, spans[0]?.descendants]).toEqual([10_000, 9999, 9999]);
  });

  test('an empty trace', () => expect(buildTrace([])).toMatchObject({ spans: [], duration_ns: 0 }));

  test('errors and events', () => {
    const failed = span(1, 0, 0, 10, {
      kind: 'SPAN_KIND_SERVER',
      status: { code: 'STATUS_CODE_ERROR', message: 'no' },
      events: [{ timeUnixNano: String(START + 4n), name: 'exception' }],
    });
    expect(buildTrace([batch('a', failed)]).spans[0]).toMatchObject({
      isError: true,
      statusText: 'no',
      kind: 'server',
      events: [{ name: 'exception', at_ns: 4 }],
    });
  });
});

test.each([
  ['AAAAAAAAAAE=', '0000000000000001'],
  ['00000000000000AB', '00000000000000ab'],
  ['', ''],
  ['AAAAAAAAAAA=', ''],
])('id %j', (id, hex) => expect(hexId(id)).toBe(hex));

test.each([
  [{ intValue: '9007199254740993' }, '9007199254740993'],
  [{ boolValue: false }, 'false'],
  [{ doubleValue: 0.5 }, '0.5'],
  [{ arrayValue: { values: [{ stringValue: 'a' }, { intValue: 1 }] } }, '[a, 1]'],
  [{ kvlistValue: { values: [{ key: 'k', value: { stringValue: '<b>' } }] } }, '{k: <b>}'],
  [{}, ''],
  [undefined, ''],
])('value %j', (value, text) => expect(valueText(value)).toBe(text));
