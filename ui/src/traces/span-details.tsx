import { LabelTable } from '../parts/labels';
import { routeHash } from '../route';
import { durationText } from '../time';
import type { TreeSpan } from './tree';

export function SpanDetails({ span, logs: [around, withId] }: { span: TreeSpan; logs: [string, string] }) {
  return (
    <div class="span-details" aria-label="Span">
      <h2>
        {span.service}: {span.name}
      </h2>
      <p>
        {durationText(span.duration_ns)}, {durationText(span.start_ns)} after the start
        {span.kind && `, ${span.kind}`}
        {span.scope && `, by ${span.scope}`}, span <span class="mono">{span.id}</span>
        {' · '}
        <a href={around}>logs of {span.service}</a>
        {' · '}
        <a href={withId}>with this trace id</a>
      </p>
      {span.isError && <p class="notice error">Failed{span.statusText && `: ${span.statusText}`}</p>}
      <div class="columns">
        <Group title="Attributes" pairs={span.attributes} />
        <Group title="Resource" pairs={span.resource} />
      </div>
      {span.events.length > 0 && (
        <section>
          <h3>Events</h3>
          {span.events.map((event, i) => (
            <div class="event" key={i}>
              <p>
                <span class="mono dim">+{durationText(Math.max(0, event.at_ns))}</span> {event.name}
              </p>
              <LabelTable labels={Object.fromEntries(event.attributes)} />
            </div>
          ))}
        </section>
      )}
      {span.links.length > 0 && (
        <section>
          <h3>Links</h3>
          {span.links.map((link, i) => (
            <div class="event" key={i}>
              <a class="mono" href={routeHash({ tab: 'traces', params: { trace: link.traceId } })}>
                {link.traceId}
              </a>
              <LabelTable labels={Object.fromEntries(link.attributes)} />
            </div>
          ))}
        </section>
      )}
    </div>
  );
}

function Group({ title, pairs }: { title: string; pairs: [string, string][] }) {
  if (pairs.length === 0) return null;
  return (
    <section>
      <h3>{title}</h3>
      <LabelTable labels={Object.fromEntries(pairs)} />
    </section>
  );
}
