// Where the panel is: `#/models`, `#/requests/req_…`. The hash, because the window has no server to ask for paths.

export const pages = ['overview', 'schedule', 'power', 'models', 'networks', 'requests', 'settings'] as const
export type Page = (typeof pages)[number]

export interface Route {
  page: Page
  /** What follows the page: a request's id, a setting's key. */
  rest: string
}

export function parse(hash: string): Route {
  const [name = '', ...rest] = hash.replace(/^#\/?/, '').split('/')
  const page = pages.find((page) => page === name) ?? 'overview'
  return { page, rest: decodeURIComponent(rest.join('/')) }
}

export const href = (page: Page, rest = ''): string => `#/${page}${rest === '' ? '' : `/${encodeURIComponent(rest)}`}`

class Here {
  route: Route = $state.raw(parse(location.hash))

  constructor() {
    addEventListener('hashchange', () => (this.route = parse(location.hash)))
  }
}

export const here = new Here()
