// The window's transport: the same values over the window's IPC. The only file that knows Tauri.

import { invoke } from '@tauri-apps/api/core'
import { listen } from '@tauri-apps/api/event'

import type { Event, Request, Response } from '../generated/control'
import { type Backend, type Listener, patience, Unreachable } from './index'

export function inWindow(): boolean {
  return '__TAURI_INTERNALS__' in globalThis
}

export class TauriBackend implements Backend {
  #knock: (() => void) | undefined

  async request(request: Request): Promise<Response> {
    try {
      return await invoke<Response>('control', { request })
    } catch (error) {
      this.#knock?.()
      throw new Unreachable(String(error))
    }
  }

  /**
   * The window passes the engine's events on, and says `resync` whenever its own way to the engine was lost or came
   * back. Asking then tells which of the two; until an answer comes, this asks again with patience.
   */
  events(listener: Listener): () => void {
    let ended = false
    let timer: ReturnType<typeof setTimeout> | undefined
    const knock = async (failures = 0): Promise<void> => {
      clearTimeout(timer)
      try {
        await invoke<Response>('control', { request: { type: 'status' } satisfies Request })
        if (!ended) listener.link('live')
      } catch {
        if (ended) return
        listener.link('lost')
        timer = setTimeout(() => void knock(failures + 1), patience(failures))
      }
    }
    this.#knock = () => void knock()
    const heard = listen<Event>('control-event', ({ payload }) => {
      if (payload.type === 'resync') void knock()
      else listener.event(payload)
    })
    void heard.then(() => knock())
    return () => {
      ended = true
      clearTimeout(timer)
      void heard.then((unlisten) => unlisten())
    }
  }
}
