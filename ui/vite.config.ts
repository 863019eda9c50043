import { defineConfig } from 'vitest/config';

/** Where `npm run dev` finds a running Triptych. */
const triptych = process.env.TRIPTYCH_URL ?? 'http://127.0.0.1:3300';
const proxied = ['/api', '/loki', '/v1', '/ready', '/config', '/metrics'];

export default defineConfig({
  base: '/',
  build: {
    // The gateway serves dist/index.html at / and dist/ui/.. at /ui/..
    assetsDir: 'ui/assets',
    target: 'es2022',
    modulePreload: { polyfill: false },
    // Its content security policy allows scripts from files alone.
    assetsInlineLimit: 0,
  },
  server: {
    proxy: Object.fromEntries(proxied.map((path) => [path, { target: triptych, ws: path === '/loki' }])),
  },
  test: { include: ['src/**/*.test.ts'] },
});
