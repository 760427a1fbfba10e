// The browser's transport: loopback HTTP with a bearer in a header, and server-sent events over fetch.

import type { Event, Request, Response } from '../generated/control'
import { Denied, type Backend, type Listener, patience, Refused, Unreachable } from './index'
import { events } from './sse'

const TOKEN = 'idlewatt.token'

export class HttpBackend implements Backend {
  #token = sessionStorage.getItem(TOKEN)
  #wake: (() => void) | undefined

  get loggedIn(): boolean {
    return this.#token !== null
  }

  /** Exchanges a one-time login code for the bearer, which lives as long as this tab. */
  async login(code: string): Promise<void> {
    const response = await this.#post('/api/login', { code })
    const answer = (await response.json().catch(() => undefined)) as Response | { token: string } | undefined
    if (answer !== undefined && 'type' in answer && answer.type === 'error') throw new Refused(answer.value)
    if (answer === undefined || !('token' in answer)) throw new Unreachable(`login answered ${response.status}`)
    const { token } = answer
    this.#token = token
    sessionStorage.setItem(TOKEN, token)
    this.#wake?.()
  }

  async request(request: Request): Promise<Response> {
    const response = await this.#post('/api/control', request)
    if (response.status === 401) this.#forget()
    const value: unknown = await response.json().catch(() => undefined)
    if (value !== null && typeof value === 'object' && 'type' in value) return value as Response
    throw new Unreachable(`${request.type} answered ${response.status}`)
  }

  events(listener: Listener): () => void {
    const stop = new AbortController()
    void this.#listen(listener, stop.signal)
    return () => {
      stop.abort()
      this.#wake?.()
    }
  }

  async #listen(listener: Listener, signal: AbortSignal): Promise<void> {
    let failures = 0
    while (!signal.aborted) {
      if (this.#token === null) {
        listener.link('denied')
        await this.#pause()
        continue
      }
      try {
        const response = await fetch('/api/events', { headers: this.#bearer(), signal })
        if (response.status === 401) this.#forget()
        if (!response.ok || response.body === null) throw new Unreachable(`events answered ${response.status}`)
        failures = 0
        listener.link('live')
        for await (const data of events(response.body)) listener.event(JSON.parse(data) as Event)
      } catch (error) {
        if (error instanceof Denied) continue
      }
      if (signal.aborted) return
      listener.link('lost')
      await this.#pause(patience(failures++))
    }
  }

  /** Until a login, an end, or `ms`. */
  #pause(ms?: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  async #post(path: string, body: unknown): Promise<globalThis.Response> {
    try {
      return await fetch(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...this.#bearer() },
        body: JSON.stringify(body),
      })
    } catch {
      throw new Unreachable(path)
    }
  }

  #bearer(): Record<string, string> {
    return this.#token === null ? {} : { authorization: `Bearer ${this.#token}` }
  }

  #forget(): never {
    this.#token = null
    sessionStorage.removeItem(TOKEN)
    throw new Denied()
  }
}

/** The login code of `#code=…`, or of a pasted control panel address; the text itself where it is a bare code. */
export function loginCode(text: string): string {
  return /#code=([^&\s]+)/.exec(text)?.[1] ?? text.trim()
}
