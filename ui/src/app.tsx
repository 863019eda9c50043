import { useCallback, useState } from 'preact/hooks';
import { Logs } from './logs';
import { Metrics } from './metrics';
import { RangePicker } from './parts/range-picker';
import { type Params, TABS, type TabProps, routeHash, tabHash, useRoute } from './route';
import { Status } from './status';
import { Traces } from './traces';

const PAGES = { metrics: Metrics, logs: Logs, traces: Traces, status: Status };
const TITLES = { metrics: 'Metrics', logs: 'Logs', traces: 'Traces', status: 'Status' };

export function App() {
  const [route, go] = useRoute();
  const [tick, setTick] = useState(0);
  const refresh = useCallback(() => setTick((t) => t + 1), []);
  const set = (changed: Params) => {
    const next = { ...route, params: { ...route.params, ...changed } };
    // The same address again is the same question again.
    if (routeHash(next) === routeHash(route)) refresh();
    else go(next);
  };
  const props: TabProps = { params: route.params, set, tick, refresh };
  const Page = PAGES[route.tab];
  return (
    <>
      <header>
        <h1>
          <a href="#/metrics">
            <Panels />
            Triptych
          </a>
        </h1>
        <nav aria-label="Signals">
          {TABS.map((tab) => (
            <a key={tab} href={tabHash(tab, route)} aria-current={tab === route.tab ? 'page' : undefined}>
              {TITLES[tab]}
            </a>
          ))}
        </nav>
        <RangePicker
          params={route.params}
          onChange={({ from, to }) => set({ from, to })}
          onRefresh={refresh}
        />
      </header>
      <main>
        <Page {...props} />
      </main>
    </>
  );
}

/** Three panels of one picture. */
function Panels() {
  return (
    <svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true">
      <path fill="#d97706" d="M0 3l4 1v8l-4 1z" />
      <path fill="#4f46e5" d="M5 2h6v12H5z" />
      <path fill="#0d9488" d="M16 3l-4 1v8l4 1z" />
    </svg>
  );
}
