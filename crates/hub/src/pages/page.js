// What the pages that ask something share: the way to the hub, and errors in its words.

/** What a request was refused with, in words for people; `status` is 0 where the hub was not reached. */
export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message)
    this.status = status
    this.retryAfter = retryAfter
  }
}

/** Asks this hub. Secrets go into the header, never into an address. */
export async function ask(path, { key, body, headers, signal } = {}) {
  let answer
  try {
    answer = await fetch(path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      credentials: 'omit',
      referrerPolicy: 'no-referrer',
      signal,
    })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new Refused(0, 'The hub cannot be reached from here. Look whether this device is online, and in the same network as the hub; then try again.')
  }
  if (answer.ok) return answer
  const told = await answer.json().catch(() => undefined)
  throw new Refused(
    answer.status,
    told?.error?.message ?? `The hub answered with ${answer.status} and no words. Try again in a while.`,
    Number(answer.headers.get('retry-after')) || undefined,
  )
}

export const $ = (id) => document.getElementById(id)

/** An element with text or elements in it. */
export function el(name, attributes = {}, ...inside) {
  const made = document.createElement(name)
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith('on')) made.addEventListener(attribute.slice(2), value)
    else if (value === true) made.setAttribute(attribute, '')
    else if (value !== false && value !== undefined) made.setAttribute(attribute, value)
  }
  made.append(...inside.filter((part) => part !== undefined && part !== ''))
  return made
}

/** Says what went wrong there, or nothing. */
export function say(place, error) {
  place.textContent = error === undefined ? '' : error.message
  place.hidden = error === undefined
}

export const number = (value, digits = 0) =>
  value.toLocaleString('en-GB', { minimumFractionDigits: digits, maximumFractionDigits: digits })

const significant = (value) => (value >= 1000 ? number(value) : value.toLocaleString('en-GB', { maximumSignificantDigits: 3 }))

/** Micro-credits as credits. */
export function credits(ucr) {
  const value = ucr / 1e6
  const size = Math.abs(value)
  const text = Number.isInteger(value) || size >= 1000 ? number(value) : size >= 1 ? number(value, 2) : significant(value)
  return `${text} ${text === '1' ? 'credit' : 'credits'}`
}

/** Millijoules. */
export function energy(mj) {
  if (mj < 3_600_000) return `${significant(mj / 1000)} J`
  return mj < 3_600_000_000 ? `${significant(mj / 3.6e6)} Wh` : `${significant(mj / 3.6e9)} kWh`
}

/** Base64, in either alphabet. */
export const bytes = (text) => Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0))

/** The JSON in a signed envelope. What it says is as true as who signed it: nothing is checked here. */
export const payload = (envelope) => JSON.parse(new TextDecoder().decode(bytes(envelope.payload)))
