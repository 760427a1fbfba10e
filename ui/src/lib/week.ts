// Share windows as a week to paint: 7 days, Monday first, of 48 half hours each; and as the text of `share.windows`.

export const DAYS = 7
export const SLOTS = 48
const DAY = 1_440
const SLOT = DAY / SLOTS
const NAMES = ['Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun']
const LONG = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday']

/** For each day, whether sharing is allowed for all of a half hour; `part` where for some of it. */
export type Slot = boolean | 'part'
export type Week = Slot[][]

/** Weeks that many want. */
export const presets = {
  always: 'always',
  nights: 'Mon-Sun 22:00-07:00',
  weekends: 'Sat-Sun 00:00-24:00',
  both: 'Mon-Sun 22:00-07:00, Sat-Sun 00:00-24:00',
  never: 'never',
}

export const empty = (): Week => Array.from({ length: DAYS }, () => Array<Slot>(SLOTS).fill(false))

/** Some half hours of some days, both ends within. */
export interface Block {
  day: [number, number]
  slot: [number, number]
}

export function paint(week: Week, { day, slot }: Block, on: boolean): Week {
  const [top, bottom, left, right] = [Math.min(...day), Math.max(...day), Math.min(...slot), Math.max(...slot)]
  return week.map((slots, d) => (d < top || d > bottom ? slots : slots.map((was, s) => (s < left || s > right ? was : on))))
}

/** Whether the half hours say all that the text said. */
export const exact = (week: Week): boolean => week.every((slots) => !slots.includes('part'))

/** The week that a text means; `undefined` where it cannot be read, which the engine says better. */
export function fromText(text: string): Week | undefined {
  const open = new Uint8Array(DAYS * DAY)
  const clean = text.trim().toLowerCase()
  if (clean === 'always') open.fill(1)
  else if (clean !== 'never') {
    for (const part of clean.split(',')) {
      const found = /^(?:([a-z]+)(?:\s*-\s*([a-z]+))?)?\s*(?:(\d{1,2}):(\d{1,2})\s*-\s*(\d{1,2}):(\d{1,2}))?$/.exec(part.trim())
      if (found === null || part.trim() === '') return undefined
      const [, firstName, lastName, ...times] = found
      const first = firstName === undefined ? 0 : dayOf(firstName)
      const last = firstName === undefined ? 6 : lastName === undefined ? first : dayOf(lastName)
      const whole = times[0] === undefined
      const [from, to] = whole ? [0, DAY] : [minutes(times[0], times[1]), minutes(times[2], times[3])]
      if (first < 0 || last < 0 || from === undefined || to === undefined || from === DAY || from === to) return undefined
      const length = to > from ? to - from : to + DAY - from
      for (let day = first; ; day = (day + 1) % DAYS) {
        for (let i = 0; i < length; i += 1) open[(day * DAY + from + i) % open.length] = 1
        if (day === last) break
      }
    }
  }
  return empty().map((slots, day) =>
    slots.map((_, slot) => {
      const at = day * DAY + slot * SLOT
      const sum = open.subarray(at, at + SLOT).reduce((sum, one) => sum + one, 0)
      return sum === SLOT || (sum === 0 ? false : 'part')
    }),
  )
}

const dayOf = (name: string): number => (name.length < 3 ? -1 : LONG.findIndex((day) => day.startsWith(name)))

function minutes(hour = '', minute = ''): number | undefined {
  const at = Number(hour) * 60 + Number(minute)
  return Number(minute) < 60 && at <= DAY ? at : undefined
}

/**
 * The shortest plain text that means this week: neighbouring half hours are one span, nights run over midnight, and
 * days alike share a line. A half hour that is open in part counts as closed.
 */
export function toText(week: Week): string {
  const open = week.flat().map((slot) => slot === true)
  if (open.every(Boolean)) return 'always'
  const days = new Map<string, number[]>()
  for (const { from, length } of runs(open)) {
    for (const piece of pieces(from, length)) {
      const day = Math.floor(piece.from / SLOTS)
      const end = (piece.from % SLOTS) + piece.length
      const span = `${clock(piece.from % SLOTS)}-${clock(end > SLOTS ? end - SLOTS : end)}`
      days.set(span, [...(days.get(span) ?? []), day])
    }
  }
  const lines = [...days].flatMap(([span, days]) => ranges(days).map(([first, last]) => ({ first, last, span })))
  lines.sort((a, b) => a.first - b.first || (a.span < b.span ? -1 : 1))
  return lines.map(({ first, last, span }) => `${NAMES[first]}${last === first ? '' : `-${NAMES[last]}`} ${span}`).join(', ') || 'never'
}

interface Run {
  from: number
  length: number
}

/** Stretches of open half hours; the week is a ring, and not all of it is open. */
function runs(open: boolean[]): Run[] {
  const all: Run[] = []
  const closed = open.indexOf(false)
  for (let i = 1; i <= open.length; i += 1) {
    const at = (closed + i) % open.length
    const last = all.at(-1)
    if (!open[at]) continue
    if (last !== undefined && open[(at + open.length - 1) % open.length]) last.length += 1
    else all.push({ from: at, length: 1 })
  }
  return all
}

/** A span is shorter than a day, or a day from midnight on: longer ones are cut at midnight. */
function pieces(from: number, length: number): Run[] {
  if (length < SLOTS) return [{ from, length }]
  const all: Run[] = []
  for (let at = from; at < from + length; ) {
    const next = Math.min(from + length, at - (at % SLOTS) + SLOTS)
    all.push({ from: at % (DAYS * SLOTS), length: next - at })
    at = next
  }
  return all
}

/** Days as first and last of each stretch of neighbours; the week is a ring. */
function ranges(days: number[]): [number, number][] {
  const has = new Set(days)
  if (has.size === DAYS) return [[0, 6]]
  const found: [number, number][] = []
  for (const day of [...has].sort((a, b) => a - b)) {
    if (has.has((day + 6) % DAYS)) continue
    let last = day
    while (has.has((last + 1) % DAYS)) last = (last + 1) % DAYS
    found.push([day, last])
  }
  return found
}

/** Half hours after midnight as a clock shows them; the end of a day is 24:00. */
export const clock = (slot: number): string => `${String(Math.floor(slot / 2)).padStart(2, '0')}:${slot % 2 === 0 ? '00' : '30'}`

/** The open hours of a day as people read them: `00:00–07:00`, `22:00–24:00`. What is open in part counts as open. */
export function hours(slots: Slot[]): string[] {
  const spans: [number, number][] = []
  slots.forEach((slot, i) => {
    const last = spans.at(-1)
    if (slot === false) return
    if (last?.[1] === i) last[1] = i + 1
    else spans.push([i, i + 1])
  })
  return spans.map(([from, to]) => `${clock(from)}–${clock(to)}`)
}
