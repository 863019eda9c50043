import { Component, type ComponentType, h } from 'preact';

/** A component that is rendered again only where `same` says no: thousands of lines stay as they are when some arrive. */
export function memo<P extends object>(inner: ComponentType<P>, same: (before: P, after: P) => boolean): ComponentType<P> {
  return class Memo extends Component<P> {
    shouldComponentUpdate(next: P) {
      return !same(this.props, next);
    }
    render() {
      return h(inner, this.props);
    }
  };
}
