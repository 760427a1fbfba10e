// Readings of single cards made into one curve of the whole machine, for pictures and their words.

import type { Sample } from './generated/control'

export interface Point {
  at: number
  /** All cards together; `undefined` where none told. */
  mw: number | undefined
  /** The limits of all cards together; `undefined` where one has none. */
  cap: number | undefined
  temperature: number | undefined
  running: number
}

/** A card that has not told for so long counts no more; cards are asked at least every minute. */
const STALE_MS = 120_000

/** The machine's power: at each moment the sum of each card's latest reading. */
export function whole(samples: Sample[]): Point[] {
  const latest = new Map<string, Sample>()
  const points: Point[] = []
  for (const sample of samples) {
    latest.set(sample.gpu, sample)
    let mw: number | undefined
    let cap: number | undefined = 0
    let temperature: number | undefined
    let running = 0
    for (const [gpu, one] of latest) {
      if (sample.at - one.at > STALE_MS) {
        latest.delete(gpu)
        continue
      }
      if (one.power_mw !== undefined) mw = (mw ?? 0) + one.power_mw
      cap = one.cap_mw === undefined || cap === undefined ? undefined : cap + one.cap_mw
      if (one.temperature_c !== undefined) temperature = Math.max(temperature ?? -273, one.temperature_c)
      running = Math.max(running, one.running)
    }
    const point = { at: sample.at, mw, cap, temperature, running }
    if (points.at(-1)?.at === sample.at) points[points.length - 1] = point
    else points.push(point)
  }
  return points
}

/** With a hole wherever the readings stop for much longer than they usually are apart, so that no line lies. */
export function withHoles(points: Point[]): Point[] {
  const steps = points.slice(1).map((point, i) => point.at - (points[i]?.at ?? 0))
  const usual = steps.toSorted((a, b) => a - b)[Math.floor(steps.length / 2)] ?? 0
  const longest = Math.max(usual * 4, STALE_MS)
  return points.flatMap((point, i) => {
    const before = points[i - 1]
    if (before === undefined || point.at - before.at <= longest) return [point]
    return [{ ...before, at: before.at + 1, mw: undefined, cap: undefined }, point]
  })
}

/** Lowest and highest reading; `undefined` where there is none. */
export function range(points: Point[]): { low: number; high: number } | undefined {
  let low = Infinity
  let high = -Infinity
  for (const { mw } of points) {
    if (mw === undefined) continue
    low = Math.min(low, mw)
    high = Math.max(high, mw)
  }
  return high < low ? undefined : { low, high }
}

/** At most `most` of them, evenly. */
export function thinned<T>(all: T[], most: number): T[] {
  if (all.length <= most) return all
  const step = (all.length - 1) / (most - 1)
  return Array.from({ length: most }, (_, i) => all[Math.round(i * step)] as T)
}
