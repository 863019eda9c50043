// Every tab in a real browser against a running Triptych: a query is typed, the answer is seen, hostile data stays text.

import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Browser, type Page, chromium } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { HOSTILE, type Written, writeData } from './data';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const URL_OF_TRIPTYCH = process.env.TRIPTYCH_URL ?? 'http://127.0.0.1:3300';
const PICTURES = fileURLToPath(new URL('./pictures/', import.meta.url));
const hasChromium = existsSync(CHROMIUM);
if (!hasChromium) console.log(`skipped: there is no ${CHROMIUM}; install Chromium or set CHROMIUM`);

/** The browser shall ask nobody but us. */
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

describe.skipIf(!hasChromium)('the page', () => {
  let browser: Browser;
  let page: Page;
  let written: Written;
  const problems: string[] = [];

  beforeAll(async () => {
    mkdirSync(PICTURES, { recursive: true });
    const root = await (await fetch(URL_OF_TRIPTYCH)).text();
    if (!root.includes('id="app"')) throw new Error(`${URL_OF_TRIPTYCH} was built without the page`);
    written = await writeData(URL_OF_TRIPTYCH);
    browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
    page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    page.setDefaultTimeout(15_000);
    page.on('pageerror', (error) => problems.push(String(error)));
    // A refused script or a broken asset ends here too; answers such as 400 are shown by the page and are no problem.
    page.on('console', (message) => {
      if (message.type() === 'error' && !/status of (4|5)\d\d/.test(message.text())) problems.push(message.text());
    });
  });
  afterAll(() => browser?.close());
  afterEach(async () => {
    expect(await page.evaluate('window.hacked'), 'hostile data ran as a script').toBeUndefined();
    expect(await page.locator('img').count(), 'hostile data became an element').toBe(0);
    expect(problems).toEqual([]);
  });

  const open = (hash: string) => page.goto(`${URL_OF_TRIPTYCH}/${hash}`);
  const picture = (name: string) => page.screenshot({ path: `${PICTURES}${name}.png` });
  const ask = async (query: string) => {
    const box = page.locator('.query textarea');
    await box.fill(query);
    await box.press('Control+Enter');
  };
  /** Asks again until it is there: what was written a moment ago may take one. */
  const eventually = async (selector: string) => {
    for (let i = 0; i < 10; i++) {
      try {
        return await page.locator(selector).first().waitFor({ timeout: 2000 });
      } catch {
        await page.getByRole('button', { name: 'Refresh' }).click();
      }
    }
    await picture('missing');
    throw new Error(`${selector} did not appear: ${await page.locator('main').innerText()}`);
  };

  test('metrics: names are suggested, a plot is drawn, the table shows values', async () => {
    await open('#/metrics?from=now-15m&to=now');
    await page.locator('.query textarea').pressSequentially(written.metric.slice(0, -1));
    await page.locator('.suggestions li', { hasText: written.metric }).first().waitFor();
    await picture('metrics-suggestions');
    await ask(written.metric);
    await eventually('.plot canvas');
    const names = await page.locator('.legend-name').allInnerTexts();
    expect(names).toHaveLength(2);
    expect(names.join()).toContain(JSON.stringify(HOSTILE));
    expect(decodeURIComponent(page.url())).toContain(`q=${written.metric}`);
    await page.locator('.u-over').hover({ position: { x: 400, y: 100 } });
    await picture('metrics');
    await page.locator('.legend button').first().click();
    expect(await page.locator('.legend button').first().getAttribute('aria-pressed')).toBe('false');

    await page.getByRole('button', { name: 'Table' }).click();
    await eventually('.results td.number');
    expect(await page.locator('.results tbody tr').count()).toBe(2);
    await picture('metrics-table');
  });

  test('metrics: an error is shown as the server says it', async () => {
    await open('#/metrics');
    await ask('sum(');
    const error = page.getByRole('alert');
    await error.waitFor();
    expect(await error.innerText()).toMatch(/^400 bad_data: .+/);
    await picture('metrics-error');
  });

  test('logs: lines, labels, volume, and the way to the trace', async () => {
    await open('#/logs?from=now-15m&to=now');
    await ask(`{service_name="${written.service}"}`);
    await eventually('.entry');
    expect(await page.locator('.entry').count()).toBe(100);
    expect(await page.locator('.entry-text').first().innerText()).toBe(`level=error msg=${HOSTILE}`);
    expect(await page.locator('.entry').first().getAttribute('class')).toContain('level-error');
    await eventually('.volume-bars button');
    await page.locator('.entry-toggle').first().click();
    expect(await page.locator('.entry-details').innerText()).toContain(HOSTILE);
    await picture('logs');

    await page.getByRole('button', { name: 'older lines' }).click();
    await page.locator('.entry').nth(198).waitFor({ state: 'attached' });
    await page.getByRole('button', { name: 'older lines' }).click();
    await page.locator('.entry').nth(239).waitFor({ state: 'attached' });
    expect(await page.locator('.entry').count()).toBe(240);

    await page.locator('.trace-link').first().click();
    await eventually('.span-row');
    expect(page.url()).toContain(`trace=${written.traceId}`);
  });

  test('logs: a metric query is a plot, the browser finds streams', async () => {
    await open('#/logs?from=now-15m&to=now');
    await ask(`sum by (level) (count_over_time({service_name="${written.service}"} | logfmt [1m]))`);
    await eventually('.plot canvas');
    expect(await page.locator('.legend-name').count()).toBeGreaterThanOrEqual(4);
    await picture('logs-plot');
    await page.getByRole('button', { name: 'Labels' }).click();
    await page.locator('.browser-names button', { hasText: 'service_name' }).click();
    await page.locator('.browser-values button', { hasText: written.service }).first().click();
    await eventually('.entry');
  });

  test('logs: live lines arrive', async () => {
    await open(`#/logs?${new URLSearchParams({ q: `{service_name="live-${written.run}"}`, live: '1' })}`);
    await page.getByText('Following').waitFor();
    const stream = { stream: { service_name: `live-${written.run}` }, values: [[`${Date.now()}000000`, 'hello from now']] };
    await fetch(`${URL_OF_TRIPTYCH}/loki/api/v1/push`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ streams: [stream] }),
    });
    await page.locator('.entry-text', { hasText: 'hello from now' }).waitFor();
    await picture('logs-live');
  });

  test('traces: search, waterfall, a span, and the way to the logs', async () => {
    await open('#/traces?from=now-15m&to=now');
    await ask(`{ resource.service.name = "${written.service}-pay" && status = error }`);
    await eventually('.rows tbody tr');
    expect(await page.locator('.rows tbody tr').count()).toBe(1);
    await picture('traces');
    await page.locator('.rows tbody tr').click();
    await eventually('.span-row');
    expect(await page.locator('.span-row').count()).toBe(25);
    expect(await page.locator('.span-row.failed').count()).toBe(1);
    expect(await page.locator('.span-details').innerText()).toContain(HOSTILE);
    await page.locator('.span-row.failed').click();
    expect(await page.locator('.span-details').innerText()).toContain('card refused');
    await picture('trace');
    await page.getByRole('tree').press('ArrowLeft');
    expect(await page.locator('.span-row').count()).toBe(5);

    await page.getByRole('link', { name: 'logs' }).first().click();
    await eventually('.entry');
    expect(page.url()).toContain('#/logs');
  });

  test('traces: numbers over spans are a plot', async () => {
    await open('#/traces?from=now-15m&to=now');
    await ask(`{ resource.service.name =~ "${written.service}.*" } | count_over_time() by (resource.service.name)`);
    await eventually('.plot canvas');
    expect(await page.locator('.legend-name').count()).toBe(3);
    await picture('traces-plot');
  });

  test('status: roles and configuration', async () => {
    await open('#/status');
    await eventually('.roles tbody tr');
    expect(await page.locator('.roles tbody tr').count()).toBeGreaterThan(0);
    await page.locator('.config').waitFor();
    await picture('status');
  });

  test('a partial answer says so on every tab', async () => {
    // The real answers, with what a server adds when it could not read everything.
    const add = (path: string, change: (body: Record<string, object>) => void) =>
      page.route(path, async (route) => {
        const response = await route.fetch();
        const body = (await response.json()) as Record<string, object>;
        change(body);
        await route.fulfill({ response, json: body });
      });
    const missed = 'one store did not answer';
    const header = (path: string) =>
      page.route(path, async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, headers: { ...response.headers(), 'x-triptych-missed': missed } });
      });
    await add('**/api/v1/query_range?*', (body) => (body.warnings = [`partial answer: ${missed}`]));
    await header('**/api/search?*');
    await header('**/api/v2/traces/*');
    const asked: ({ tab: string } & Record<string, string>)[] = [
      { tab: 'metrics', q: written.metric },
      { tab: 'logs', q: `{service_name="${written.service}"}` },
      { tab: 'traces', q: '{}' },
      { tab: 'traces', q: '{}', trace: written.traceId },
    ];
    for (const { tab, ...params } of asked) {
      await open(`#/${tab}?${new URLSearchParams({ ...params, from: 'now-15m', to: 'now' })}`);
      await page.locator('.plot canvas, .entry, .rows tr, .span-row').first().waitFor();
      await page.locator('.notice.warning', { hasText: `partial answer: ${missed}` }).first().waitFor();
    }
    await picture('partial');
    await page.unrouteAll({ behavior: 'wait' });
  });

  test('a range is chosen by hand, and is in the address', async () => {
    await open(`#/metrics?${new URLSearchParams({ q: written.metric })}`);
    await page.getByRole('button', { name: 'Custom' }).click();
    await picture('range');
    await page.getByRole('button', { name: 'Apply' }).click();
    await eventually('.plot canvas');
    expect(page.url()).toMatch(/from=\d{13}&to=\d{13}/);
  });

  test('dark and narrow', async () => {
    await page.emulateMedia({ colorScheme: 'dark' });
    await page.setViewportSize({ width: 800, height: 900 });
    const hash = { metrics: written.metric, logs: `{service_name="${written.service}"}`, traces: '{}' };
    for (const [tab, q] of Object.entries(hash)) {
      const trace: Record<string, string> = tab === 'traces' ? { trace: written.traceId } : {};
      await open(`#/${tab}?${new URLSearchParams({ q, from: 'now-15m', to: 'now', ...trace })}`);
      await eventually('.plot canvas, .entry, .span-row');
      expect(await page.evaluate('document.documentElement.scrollWidth'), `${tab} is wider than the window`).toBe(800);
      await picture(`dark-${tab}`);
    }
  });
});
