import type { Labels } from '../api';

/** A table of names and values, sorted by name; `action` may add buttons to each row. */
export function LabelTable({
  labels,
  action,
}: {
  labels: Labels;
  action?: (name: string, value: string) => preact.ComponentChildren;
}) {
  const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return (
    <table class="labels">
      <tbody>
        {sorted.map(([name, value]) => (
          <tr key={name}>
            {action && <td class="label-actions">{action(name, value)}</td>}
            <th scope="row">{name}</th>
            <td>{value}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** `name{a="b", c="d"}`, as Prometheus writes a series. */
export function seriesName(labels: Labels): string {
  const { __name__: name = '', ...rest } = labels;
  const pairs = Object.entries(rest)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return pairs.length === 0 && name ? name : `${name}{${pairs.join(', ')}}`;
}
