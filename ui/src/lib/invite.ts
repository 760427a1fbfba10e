// What an invite says, so that the person sees where it leads before anything happens. The engine checks it again.

import type { ControlError } from './generated/control'
import { m } from './messages'

export interface Invite {
  text: string
  hub: string
  /** On this machine itself. */
  local: boolean
  key: string
  /** Where the invite names it. */
  account: string | undefined
}

/** Reads `idlewatt://join?hub=…&key=…&token=…`, or says what is wrong with it. Never repeats the token. */
export function readInvite(text: string): Invite | ControlError {
  const clean = text.trim()
  const query = /^idlewatt:\/\/join\/?\?(.*)$/s.exec(clean)?.[1]
  if (query === undefined) return m.networks.bad.notAnInvite
  const parts = new URLSearchParams(query)
  for (const part of ['hub', 'key', 'token']) {
    if (!parts.get(part)) return m.networks.bad.missing(part)
  }
  let hub: URL
  try {
    hub = new URL(parts.get('hub') ?? '')
  } catch {
    return m.networks.bad.missing('hub')
  }
  const local = ['localhost', '127.0.0.1', '[::1]'].includes(hub.hostname)
  return { text: clean, hub: hub.host, local, key: parts.get('key') ?? '', account: parts.get('account') ?? undefined }
}
