// The texts of `share.apps` and `share.exceptions` as lists, and back. What is wrong in them the engine says.

/** A program that the host wants undisturbed. */
export interface AppRule {
  app: string
  /** What happens while it runs: nothing is shared, or less is drawn. */
  then: 'pause' | 'cap'
}

export function apps(text: string): AppRule[] {
  return text
    .split(',')
    .map((entry) => entry.trim())
    .filter(Boolean)
    .map((entry) => {
      const [, app, then] = /^(.*?)\s*=\s*(pause|cap)$/.exec(entry) ?? [undefined, entry, 'pause']
      return { app: app ?? entry, then: then === 'cap' ? 'cap' : 'pause' }
    })
}

export const appsText = (rules: AppRule[]): string => rules.map(({ app, then }) => (then === 'cap' ? `${app}=cap` : app)).join(', ')

/** A stretch of time that is open or closed whatever the week says. */
export interface Exception {
  /** As it stands in the setting. */
  text: string
  /** `undefined` where only the engine can read it. */
  span?: { from: Date; to: Date; open: boolean }
}

export function exceptions(text: string): Exception[] {
  return text
    .split(';')
    .map((entry) => entry.trim())
    .filter(Boolean)
    .map((text) => {
      const [, day, time, lastDay, lastTime, word] =
        /^(\d{4}-\d\d-\d\d)(?:\s+(\d\d?:\d\d))?(?:\s*-\s*(\d{4}-\d\d-\d\d)?(?:\s*(\d\d?:\d\d))?)?\s+(open|closed)$/.exec(text) ?? []
      if (day === undefined) return { text }
      const span = { from: at(day, time ?? '00:00'), to: at(lastDay ?? day, lastTime ?? '24:00'), open: word === 'open' }
      return Number.isNaN(span.from.getTime()) || Number.isNaN(span.to.getTime()) ? { text } : { text, span }
    })
}

function at(day: string, time: string): Date {
  const [[year = 0, month = 1, date = 1], [hour = 0, minute = 0]] = [day.split('-').map(Number), time.split(':').map(Number)]
  return new Date(year, month - 1, date, hour, minute)
}

/** From two values of a date and time field: `2026-12-24T18:00`. */
export const exceptionText = (from: string, to: string, open: boolean): string =>
  `${from.replace('T', ' ')} - ${to.replace('T', ' ')} ${open ? 'open' : 'closed'}`

export const exceptionsText = (all: Exception[]): string => all.map((one) => one.text).join('; ')
