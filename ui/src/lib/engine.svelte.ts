// What the panel knows of the engine: asked once, then kept fresh by events.

import { ask, Denied, Refused, type Backend, type Link } from './backend'
import type { ControlError, Event, Power, Request, RequestRow, Sample, Session, Status } from './generated/control'
import { m } from './messages'

/** Rows and readings kept; the engine keeps the rest. */
const ROWS = 1_000
const PAGE = 100
export const LIVE_SPAN_MS = 3_600_000

export class Engine {
  readonly backend: Backend
  link: Link = $state('connecting')
  status: Status | undefined = $state.raw()
  session: Session | undefined = $state.raw()
  /** Newest first. */
  rows: RequestRow[] = $state.raw([])
  rowsKnown = $state(false)
  /** Whether older rows are to be had. */
  moreRows = $state(false)
  /** The last hour's, oldest first. */
  samples: Sample[] = $state.raw([])
  /** As the power page asked last: it shows this at once when somebody comes back to it. */
  power: Power | undefined = $state.raw()
  /** Settings changed on the Schedule page and not saved yet, kept while somebody looks at another. */
  edits: Record<string, string> = $state.raw({})
  /** Moves on once a second while somebody looks, so that what says "ago" or "until" stays true. */
  now = $state(Date.now())

  constructor(backend: Backend) {
    this.backend = backend
  }

  /** Listens until the returned function is called. */
  start(): () => void {
    const stop = this.backend.events({
      event: (event) => this.#hear(event),
      link: (link) => {
        this.link = link
        if (link === 'live') void this.load()
      },
    })
    const tick = setInterval(() => {
      if (!document.hidden) this.now = Date.now()
    }, 1_000)
    return () => {
      clearInterval(tick)
      stop()
    }
  }

  /** Asks for everything that is shown. A failure leaves what was known; the link says that it is old. */
  async load(): Promise<void> {
    try {
      const since = Date.now() - LIVE_SPAN_MS
      const [status, session, rows, samples] = await Promise.all([
        ask(this.backend, { type: 'status' }, 'status'),
        ask(this.backend, { type: 'last_session' }, 'last_session'),
        ask(this.backend, { type: 'requests', limit: PAGE }, 'requests'),
        ask(this.backend, { type: 'samples', since }, 'samples'),
      ])
      this.status = status
      this.session = session ?? undefined
      this.rows = rows
      this.moreRows = rows.length === PAGE
      this.rowsKnown = true
      this.samples = samples
    } catch (error) {
      if (error instanceof Denied) this.link = 'denied'
    }
  }

  async older(): Promise<void> {
    const last = this.rows.at(-1)
    if (last === undefined) return
    const rows = await ask(this.backend, { type: 'requests', limit: PAGE, before: last.started }, 'requests')
    const known = new Set(this.rows.map((row) => row.id))
    this.rows = [...this.rows, ...rows.filter((row) => !known.has(row.id))]
    this.moreRows = rows.length === PAGE && this.rows.length < ROWS
  }

  /** What people call the network that a request came from; its id where it was left since. */
  network(id: string): string {
    return this.status?.networks.find((network) => network.id === id)?.name ?? id
  }

  /** Sends one that answers with the new status. */
  async command(request: Request & { type: 'pause' | 'resume' | 'share_now' | 'give_back' }): Promise<void> {
    this.status = await ask(this.backend, request, 'status')
  }

  #hear(event: Event): void {
    switch (event.type) {
      case 'status': {
        const before = this.status?.state
        this.status = event.value
        if (before !== event.value.state) void this.#reloadSession()
        return
      }
      case 'services':
        if (this.status) this.status = { ...this.status, services: event.value }
        return
      case 'networks':
        if (this.status) this.status = { ...this.status, networks: event.value }
        return
      case 'request': {
        const rest = this.rows.filter((row) => row.id !== event.value.id)
        this.rows = [event.value, ...rest].sort((a, b) => b.started - a.started).slice(0, ROWS)
        return
      }
      case 'sample': {
        const oldest = event.value.at - LIVE_SPAN_MS
        this.samples = [...this.samples.filter((sample) => sample.at >= oldest), event.value]
        return
      }
      case 'resync':
        void this.load()
    }
  }

  async #reloadSession(): Promise<void> {
    try {
      this.session = (await ask(this.backend, { type: 'last_session' }, 'last_session')) ?? undefined
    } catch {
      // The link says that what is shown is old.
    }
  }
}

/** What to show of a failure: the engine's own words, or that it could not be asked. */
export function toError(error: unknown): ControlError {
  return error instanceof Refused ? error.error : m.unreachable
}
