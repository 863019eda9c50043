import type { ComponentChildren } from 'preact';
import { ApiError } from '../api';

export function Notice({ kind, children }: { kind: 'error' | 'warning' | 'info'; children: ComponentChildren }) {
  return (
    <p class={`notice ${kind}`} role={kind === 'error' ? 'alert' : 'status'}>
      {children}
    </p>
  );
}

/** What the server said about an answer: why there is none, why it is not whole. */
export function Notices({ error, warnings = [], infos = [] }: { error?: Error; warnings?: string[]; infos?: string[] }) {
  const status = error instanceof ApiError && error.status > 0 ? `${error.status} ` : '';
  return (
    <>
      {error && (
        <Notice kind="error">
          {status}
          {error.message}
        </Notice>
      )}
      {[...new Set(warnings)].map((text) => (
        <Notice kind="warning" key={text}>
          {text}
        </Notice>
      ))}
      {[...new Set(infos)].map((text) => (
        <Notice kind="info" key={text}>
          {text}
        </Notice>
      ))}
    </>
  );
}
