// What a bench over several power caps says.

import type { BenchPoint, BenchReport, Milliwatts } from './generated/control'

/** A point with a cap and measured energy. */
export interface Measured {
  cap: Milliwatts
  uj: number
  error: number | undefined
  point: BenchPoint
}

/** Those that can be drawn, lowest cap first. */
export function curve(report: BenchReport): Measured[] {
  return report.points
    .flatMap((point) => {
      const { cap_mw: cap, decode } = point
      return cap === undefined || decode.uj_per_token === undefined ? [] : [{ cap, uj: decode.uj_per_token, error: decode.error_uj, point }]
    })
    .sort((a, b) => a.cap - b.cap)
}

/** The least energy a token, and the others that the errors cannot tell from it. */
export function thriftiest(points: Measured[]): { best: Measured; alike: Measured[] } | undefined {
  const best = points.toSorted((a, b) => a.uj - b.uj)[0]
  if (best === undefined) return undefined
  const alike = points.filter((one) => one !== best && one.uj - best.uj <= Math.hypot(one.error ?? 0, best.error ?? 0))
  return { best, alike }
}
