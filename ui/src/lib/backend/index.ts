// How the panel speaks with a running engine: one interface, two transports (http.ts, tauri.ts).

import type { ControlError, Event, Request, Response } from '../generated/control'

/** How the way to the engine stands. `denied`: it wants a login first. */
export type Link = 'connecting' | 'live' | 'lost' | 'denied'

export interface Listener {
  event(event: Event): void
  /** `live` also means: whatever was shown before may be stale, ask again. */
  link(link: Link): void
}

export interface Backend {
  request(request: Request): Promise<Response>
  /** Listens until the returned function is called; finds its way back by itself after a loss. */
  events(listener: Listener): () => void
}

/** The engine answered, and the answer is no: what, why, what to do. */
export class Refused extends Error {
  readonly error: ControlError
  constructor(error: ControlError) {
    super(error.what)
    this.error = error
  }
}

/** The engine could not be asked. */
export class Unreachable extends Error {}

/** The engine wants a login first. */
export class Denied extends Error {}

type Kind = Response['type']
export type ValueOf<K extends Kind> = Extract<Response, { type: K }> extends { value: infer V } ? V : undefined

/** Asks, and gives the answer's value where it is of the expected kind. Throws {@link Refused} where it is a no. */
export async function ask<K extends Kind>(backend: Backend, request: Request, kind: K): Promise<ValueOf<K>> {
  const response = await backend.request(request)
  if (response.type === 'error') throw new Refused(response.value)
  if (response.type !== kind) throw new Unreachable(`asked ${request.type}, answered ${response.type}`)
  return ('value' in response ? response.value : undefined) as ValueOf<K>
}

/** Waits before the next try to reach the engine: quick at first, at most five seconds. */
export function patience(failures: number): number {
  return Math.min(5_000, 250 * 2 ** Math.min(failures, 6))
}
