// Numbers as people read them: a value, its unit, enough digits and no more. Values come in the integers of the
// control interface (mW, mJ, µcredits, ms); nothing is computed with what leaves here.

import { locale, m } from './messages'

/** A figure in two parts, so that the unit can stand small beside it. */
export interface Figure {
  value: string
  unit: string
}

const NARROW = '\u202f'

export function number(value: number, digits = 0): string {
  return value.toLocaleString(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

/** Three significant digits below a thousand, whole numbers above; never an exponent. */
function significant(value: number): string {
  const size = Math.abs(value)
  if (size === 0) return '0'
  if (size >= 1000) return number(value)
  return value.toLocaleString(locale, { maximumSignificantDigits: 3, minimumSignificantDigits: 1 })
}

export function together({ value, unit }: Figure): string {
  return unit === '' ? value : `${value}${NARROW}${unit}`
}

/** Milliwatts: tenths below 10 W, whole watts above, kW from 10 kW. */
export function watts(mw: number): Figure {
  const w = mw / 1000
  if (Math.abs(w) >= 10_000) return { value: number(w / 1000, 1), unit: 'kW' }
  return { value: number(w, Math.abs(w) < 10 && w !== 0 ? 1 : 0), unit: 'W' }
}

/** Millijoules: joules below a watt-hour, then Wh, then kWh; in the unit of `beside` where it is a part of that. */
export function energy(mj: number, beside = mj): Figure {
  const size = Math.abs(beside)
  if (size < 3_600_000) return { value: significant(mj / 1000), unit: 'J' }
  const wh = mj / 3_600_000
  if (size < 3_600_000_000) return { value: significant(wh), unit: 'Wh' }
  return { value: significant(wh / 1000), unit: 'kWh' }
}

/** Microjoules a token: millijoules below a hundredth of a joule. */
export function perToken(uj: number): Figure {
  return Math.abs(uj) < 10_000 ? { value: significant(uj / 1000), unit: m.unit.millijoulesPerToken } : { value: significant(uj / 1e6), unit: m.unit.joulesPerToken }
}

/** Parts of a whole in its unit, rounded so that what is read adds up to what is read of the whole. */
export function shares(parts: number[]): Figure[] {
  const all = parts.reduce((sum, part) => sum + part, 0)
  const { value, unit } = energy(all)
  const digits = /[.](\d+)/.exec(value)?.[1]?.length ?? 0
  const step = (unit === 'J' ? 1_000 : unit === 'Wh' ? 3_600_000 : 3_600_000_000) / 10 ** digits
  const counts = parts.map((part) => Math.floor(part / step))
  const byRest = parts.map((_, i) => i).sort((a, b) => ((parts[b] ?? 0) % step) - ((parts[a] ?? 0) % step))
  const missing = Math.round(all / step) - counts.reduce((sum, count) => sum + count, 0)
  for (const i of byRest.slice(0, missing)) counts[i] = (counts[i] ?? 0) + 1
  return counts.map((count) => ({ value: number(count / 10 ** digits, digits), unit }))
}

/** Micro-credits: whole, or to the hundredth from one credit up, or three significant digits below. */
export function credits(ucr: number): Figure {
  const cr = ucr / 1_000_000
  const size = Math.abs(cr)
  const value =
    size >= 1000 || Number.isInteger(cr)
      ? number(cr)
      : size >= 1
        ? number(cr, 2)
        : significant(cr)
  return { value, unit: value === '1' ? m.unit.credit : m.unit.credits }
}

/** Every micro-credit, as it stands in the ledger. */
export function exactCredits(ucr: number): string {
  return together({ value: (ucr / 1_000_000).toLocaleString(locale, { maximumFractionDigits: 6 }), unit: m.unit.credits })
}

/** Micro-credits a million tokens, as the number that a host types: credits a million tokens. */
export function priceInput(ucr: number): string {
  return (ucr / 1_000_000).toLocaleString('en', { useGrouping: false, maximumFractionDigits: 6 })
}

/** What a host typed as credits a million tokens; `undefined` where it is no price. A comma may stand for the point. */
export function parsePrice(text: string): number | undefined {
  const clean = text.trim().replace(',', '.')
  if (!/^\d{1,6}(\.\d{1,6})?$/.test(clean)) return undefined
  const ucr = Math.round(Number(clean) * 1_000_000)
  return ucr <= 1_000_000_000_000 ? ucr : undefined
}

export function money({ micros, currency }: { micros: number; currency: string }): string {
  const amount = micros / 1_000_000
  const size = Math.abs(amount)
  // A single request costs less than a cent: three digits then, to the millionth that is known.
  const digits = size === 0 || size >= 0.1 ? 2 : Math.min(6, Math.ceil(-Math.log10(size)) + 2)
  try {
    return amount.toLocaleString(locale, {
      style: 'currency',
      currency,
      minimumFractionDigits: digits > 4 ? digits : 2,
      maximumFractionDigits: digits,
    })
  } catch {
    return `${number(amount, digits)} ${currency}`
  }
}

/** Counts of tokens and requests: 96,412 becomes 96k where space is short. */
export function count(value: number): string {
  if (value < 10_000) return number(value)
  if (value < 1_000_000) return `${number(value / 1000)}k`
  return `${significant(value / 1_000_000)}M`
}

export function bytes(value: number): string {
  const gib = value / 2 ** 30
  return gib >= 1
    ? together({ value: gib.toLocaleString(locale, { maximumFractionDigits: gib < 100 ? 1 : 0 }), unit: 'GiB' })
    : together({ value: number(value / 2 ** 20), unit: 'MiB' })
}

/** A file: as its maker names it, in thousands of thousands. */
export function size(value: number): string {
  return value >= 1e9 ? together({ value: significant(value / 1e9), unit: 'GB' }) : together({ value: number(value / 1e6), unit: 'MB' })
}

/** A length of time: 310 ms, 3.1 s, 1 min 20 s, 5 h 40 min, 2 d 3 h. */
export function duration(ms: number): string {
  const part = (value: number, unit: string): string => together({ value: String(value), unit })
  if (ms < 1000) return part(Math.round(ms), 'ms')
  if (ms < 59_950) return together({ value: number(ms / 1000, 1), unit: 's' })
  const s = Math.round(ms / 1000)
  const two = (big: number, bigUnit: string, small: number, smallUnit: string): string =>
    small === 0 ? part(big, bigUnit) : `${part(big, bigUnit)} ${part(small, smallUnit)}`
  if (s < 3600) return two(Math.floor(s / 60), 'min', s % 60, 's')
  const min = Math.round(s / 60)
  if (min < 1440) return two(Math.floor(min / 60), 'h', min % 60, 'min')
  const h = Math.round(min / 60)
  return two(Math.floor(h / 24), 'd', h % 24, 'h')
}

export function clock(at: number, seconds = false): string {
  return new Date(at).toLocaleTimeString(locale, {
    hour: '2-digit',
    minute: '2-digit',
    ...(seconds ? { second: '2-digit' } : {}),
  })
}

/** Since the start of a request: 6 ms, 1.192 s. */
export function offset(ms: number): string {
  return ms < 1000 || ms >= 60_000 ? duration(ms) : together({ value: number(ms / 1000, 3), unit: 's' })
}

/** With milliseconds, for timelines. */
export function exactClock(at: number): string {
  return `${clock(at, true)}.${String(Math.floor(at % 1000)).padStart(3, '0')}`
}

/**
 * A moment, as near as it is: `23:10`, `yesterday 23:10`, `Tue 19:40`, `14 Nov 2026`. What is ahead is rounded up to the
 * minute, as the engine's sentences do it: "until 22:00" must not be over at 21:59:30.
 */
export function moment(moment: number, now: number): string {
  const at = moment > now ? moment + 59_000 : moment
  const day = (t: number): number => {
    const date = new Date(t)
    return Math.round(Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / 86_400_000)
  }
  const days = day(now) - day(at)
  if (days === 0) return clock(at)
  if (days === 1) return `${m.yesterday} ${clock(at)}`
  if (days === -1) return `${m.tomorrow} ${clock(at)}`
  if (Math.abs(days) < 7) {
    return `${new Date(at).toLocaleDateString(locale, { weekday: 'short' })} ${clock(at)}`
  }
  return new Date(at).toLocaleDateString(locale, { day: 'numeric', month: 'short', year: 'numeric' })
}

/** Date and time in full, for titles. */
export function fullMoment(at: number): string {
  return new Date(at).toLocaleString(locale, { dateStyle: 'full', timeStyle: 'medium' })
}

/** `± 2 %` of a measured value; empty where there is no error to state. */
export function plusMinus(error: number | undefined, of: number | undefined): string {
  if (error === undefined || of === undefined || of === 0) return ''
  const percent = Math.abs((error / of) * 100)
  return `± ${percent < 10 ? significant(Math.ceil(percent * 10) / 10) : number(Math.ceil(percent))}${NARROW}%`
}
