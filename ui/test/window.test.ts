import { afterEach, expect, test, vi } from 'vitest'

import { Unreachable, type Link } from '../src/lib/backend'
import { TauriBackend } from '../src/lib/backend/tauri'
import type { Event } from '../src/lib/generated/control'

const { invoke, said } = vi.hoisted(() => ({
  invoke: vi.fn(),
  said: { event: (_: { payload: unknown }): void => undefined },
}))
vi.mock('@tauri-apps/api/core', () => ({ invoke }))
vi.mock('@tauri-apps/api/event', () => ({
  listen: async (name: string, listener: typeof said.event) => {
    expect(name).toBe('control-event')
    said.event = listener
    return () => undefined
  },
}))
afterEach(() => vi.useRealTimers())

test('the window asks by the one command and hears by the one event', async () => {
  invoke.mockResolvedValue({ type: 'done' })
  const heard: (Link | Event['type'])[] = []
  const backend = new TauriBackend()
  const stop = backend.events({ link: (link) => heard.push(link), event: (event) => heard.push(event.type) })
  await vi.waitFor(() => expect(heard).toEqual(['live']))
  said.event({ payload: { type: 'networks', value: [] } })
  expect(heard).toEqual(['live', 'networks'])
  await backend.request({ type: 'resume' })
  expect(invoke).toHaveBeenLastCalledWith('control', { request: { type: 'resume' } })
  stop()
})

test('an engine that went away is seen, and seen again when it is back', async () => {
  vi.useFakeTimers()
  invoke.mockResolvedValue({ type: 'done' })
  const heard: Link[] = []
  const backend = new TauriBackend()
  const stop = backend.events({ link: (link) => heard.push(link), event: () => undefined })
  await vi.advanceTimersByTimeAsync(0)
  invoke.mockRejectedValue('no engine')
  await expect(backend.request({ type: 'status' })).rejects.toThrow(Unreachable)
  await vi.advanceTimersByTimeAsync(0)
  invoke.mockResolvedValue({ type: 'done' })
  await vi.advanceTimersByTimeAsync(1_000)
  expect(heard).toEqual(['live', 'lost', 'live'])
  stop()
})
