// The page's state lives in the address, after `#`, so that a link shows the same to somebody else:
// `#/logs?q={job="x"}&from=now-1h&to=now`.

import { useEffect, useState } from 'preact/hooks';

export const TABS = ['metrics', 'logs', 'traces', 'status'] as const;
export type Tab = (typeof TABS)[number];
export type Params = Record<string, string>;

export interface Route {
  tab: Tab;
  params: Params;
}

/** Anything that is not a tab is the first one. */
export function parseRoute(hash: string): Route {
  const text = hash.replace(/^#?\/?/, '');
  const [name = '', search = ''] = splitOnce(text, '?');
  const tab = TABS.find((t) => t === name) ?? 'metrics';
  return { tab, params: Object.fromEntries(new URLSearchParams(search)) };
}

export function routeHash({ tab, params }: Route): string {
  const kept = Object.entries(params).filter(([, value]) => value !== '');
  const search = new URLSearchParams(kept).toString();
  return `#/${tab}${search && `?${search}`}`;
}

function splitOnce(text: string, by: string): [string, string] {
  const at = text.indexOf(by);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + by.length)];
}

/** What each tab showed last: its link in the header goes back there. */
const lastParams = new Map<Tab, Params>();

export function useRoute(): [Route, (route: Route) => void] {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  useEffect(() => {
    const listen = () => setRoute(parseRoute(location.hash));
    addEventListener('hashchange', listen);
    return () => removeEventListener('hashchange', listen);
  }, []);
  lastParams.set(route.tab, route.params);
  return [route, (next) => void (location.hash = routeHash(next))];
}

/** The link of a tab: as it was left, with the time range of now. */
export function tabHash(tab: Tab, current: Route): string {
  if (tab === current.tab) return routeHash(current);
  const { from = '', to = '' } = current.params;
  return routeHash({ tab, params: { ...lastParams.get(tab), from, to } });
}

/** What every tab gets. */
export interface TabProps {
  params: Params;
  /** Changes some parameters; an empty text takes one away. */
  set: (changed: Params) => void;
  /** Grows each time the question shall be asked again. */
  tick: number;
  refresh: () => void;
}
