import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { ask, Denied, Refused, Unreachable, type Link } from '../src/lib/backend'
import { HttpBackend, loginCode } from '../src/lib/backend/http'
import { events } from '../src/lib/backend/sse'
import type { Event } from '../src/lib/generated/control'

beforeEach(() => sessionStorage.clear())
afterEach(() => vi.unstubAllGlobals())

function body(...chunks: string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new TextEncoder().encode(chunk))
      controller.close()
    },
  })
}

async function all(stream: ReadableStream<Uint8Array>): Promise<string[]> {
  const found: string[] = []
  for await (const data of events(stream)) found.push(data)
  return found
}

test('events come whole however they are cut, and comments are passed over', async () => {
  expect(await all(body('data: {"a"', ':1}\n', '\n: keep-alive\n\ndata: x\r', '\ndata: y\r\n\r\n', 'data: cut off'))).toEqual([
    '{"a":1}',
    'x\ny',
  ])
})

test('a cut inside a character loses nothing', async () => {
  const bytes = new TextEncoder().encode('data: é\n\n')
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(bytes.slice(0, 7))
      controller.enqueue(bytes.slice(7))
      controller.close()
    },
  })
  expect(await all(stream)).toEqual(['é'])
})

test('a code is found in an address, a hash, or alone', () => {
  expect(loginCode('control panel: http://127.0.0.1:4180/#code=abc-_1')).toBe('abc-_1')
  expect(loginCode('#code=abc')).toBe('abc')
  expect(loginCode('  abc ')).toBe('abc')
})

const json = (value: unknown, status = 200): Response => new Response(JSON.stringify(value), { status })
const refusal = { type: 'error', value: { code: 'unauthorized', what: 'w', why: 'y', do: 'd' } }

test('a login keeps the token for this tab and sends it in a header, never in an address', async () => {
  const fetched = vi.fn(async (path: string, _init?: RequestInit) => (path === '/api/login' ? json({ token: 't0k' }) : json({ type: 'done' })))
  vi.stubGlobal('fetch', fetched)
  const backend = new HttpBackend()
  await backend.login('abc')
  await backend.request({ type: 'status' })
  const [path, init] = fetched.mock.calls[1] ?? []
  expect(path).toBe('/api/control')
  expect(init?.headers).toMatchObject({ authorization: 'Bearer t0k' })
  expect(sessionStorage.getItem('idlewatt.token')).toBe('t0k')
  expect(new HttpBackend().loggedIn).toBe(true)
})

test('a spent code is said in the words of the engine', async () => {
  vi.stubGlobal('fetch', async () => json(refusal, 401))
  await expect(new HttpBackend().login('old')).rejects.toThrow(Refused)
})

test('a refused token is forgotten', async () => {
  sessionStorage.setItem('idlewatt.token', 'old')
  vi.stubGlobal('fetch', async () => json(refusal, 401))
  await expect(new HttpBackend().request({ type: 'status' })).rejects.toThrow(Denied)
  expect(sessionStorage.getItem('idlewatt.token')).toBeNull()
})

test('a no of the engine keeps its three sentences; silence is something else', async () => {
  vi.stubGlobal('fetch', async () => json({ ...refusal, value: { ...refusal.value, code: 'bad_value' } }))
  await expect(ask(new HttpBackend(), { type: 'config' }, 'config')).rejects.toMatchObject({ error: { what: 'w', why: 'y', do: 'd' } })
  vi.stubGlobal('fetch', async () => Promise.reject(new TypeError('refused')))
  await expect(ask(new HttpBackend(), { type: 'config' }, 'config')).rejects.toThrow(Unreachable)
})

test('the events find their way back after a loss', async () => {
  vi.useFakeTimers()
  sessionStorage.setItem('idlewatt.token', 't')
  let calls = 0
  vi.stubGlobal('fetch', async () => {
    calls += 1
    if (calls === 2) throw new TypeError('refused')
    return new Response(body('data: {"type":"resync"}\n\n'))
  })
  const heard: (Link | Event['type'])[] = []
  const stop = new HttpBackend().events({ link: (link) => heard.push(link), event: (event) => heard.push(event.type) })
  await vi.advanceTimersByTimeAsync(300)
  await vi.advanceTimersByTimeAsync(600)
  stop()
  vi.useRealTimers()
  expect(heard.slice(0, 6)).toEqual(['live', 'resync', 'lost', 'lost', 'live', 'resync'])
})

test('without a token the events ask for a login, and go on after it', async () => {
  vi.stubGlobal('fetch', async (path: string) => (path === '/api/login' ? json({ token: 't' }) : new Response(new ReadableStream())))
  const heard: Link[] = []
  const backend = new HttpBackend()
  const stop = backend.events({ link: (link) => heard.push(link), event: () => undefined })
  await backend.login('abc')
  await vi.waitFor(() => expect(heard).toEqual(['denied', 'live']))
  stop()
})
