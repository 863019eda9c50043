import { useState } from 'preact/hooks';
import { status, tenant } from '../api';
import { useAsk } from '../parts/ask';
import { Notices } from '../parts/notice';
import type { TabProps } from '../route';

const LINKS: [string, string][] = [
  ['/metrics', 'metrics of this process'],
  ['/config', 'configuration'],
  ['/ready', 'readiness'],
  ['/api/v1/targets', 'scrape targets'],
  ['/api/v1/status/tsdb', 'series and labels with the most values'],
];

export function Status({ tick, refresh }: TabProps) {
  const roles = useAsk(`roles ${tick}`, (signal) => status.roles(signal));
  const ready = useAsk(`ready ${tick}`, (signal) => status.ready(signal));
  const config = useAsk(`config ${tick}`, (signal) => status.config(signal));
  return (
    <section aria-label="Status" class="status">
      <Notices error={roles.error ?? ready.error} />
      <h2>
        {ready.data && <span class={`badge ${ready.data.ready ? 'good' : 'bad'}`}>{ready.data.text.trim()}</span>} Triptych{' '}
        {roles.data?.version}
      </h2>
      <table class="results roles">
        <thead>
          <tr>
            <th scope="col">Role in this process</th>
            <th scope="col">State</th>
          </tr>
        </thead>
        <tbody>
          {roles.data?.roles.map(({ role, ready: isReady }) => (
            <tr key={role}>
              <td>{role}</td>
              <td>
                <span class={`badge ${isReady ? 'good' : 'bad'}`}>{isReady ? 'ready' : 'not ready yet'}</span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <h2>Look closer</h2>
      <ul class="links">
        {LINKS.map(([path, text]) => (
          <li key={path}>
            <a href={path}>{path}</a> {text}
          </li>
        ))}
      </ul>
      <Tenant onChange={refresh} />
      <h2>Configuration</h2>
      <Notices error={config.error} />
      {config.data !== undefined && (
        <pre class="config" tabIndex={0}>
          {config.data}
        </pre>
      )}
    </section>
  );
}

function Tenant({ onChange }: { onChange: () => void }) {
  const [id, setId] = useState(tenant.get);
  return (
    <form
      class="toolbar"
      onSubmit={(event) => {
        event.preventDefault();
        tenant.set(id.trim());
        onChange();
      }}
    >
      <label>
        Tenant <input value={id} placeholder="the default" onInput={(event) => setId(event.currentTarget.value)} />
      </label>
      <button type="submit">Use</button>
      <span class="dim">Sent as X-Scope-OrgID where multitenancy is on.</span>
    </form>
  );
}
