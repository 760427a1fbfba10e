import { expect, test } from 'vitest'

import type { Sample } from '../src/lib/generated/control'
import { range, thinned, whole, withHoles } from '../src/lib/power'

const at = (at: number, gpu: string, power_mw: number, cap_mw?: number): Sample => ({
  at, gpu, power_mw, running: 0, ...(cap_mw === undefined ? {} : { cap_mw }),
})

test('two cards that tell at different moments make one curve', () => {
  const points = whole([at(0, 'a', 100, 300), at(500, 'b', 50, 200), at(1000, 'a', 120, 300)])
  expect(points.map((point) => [point.at, point.mw, point.cap])).toEqual([
    [0, 100, 300],
    [500, 150, 500],
    [1000, 170, 500],
  ])
})

test('a card that fell silent counts no more', () => {
  expect(whole([at(0, 'a', 100), at(0, 'b', 50), at(300_000, 'a', 100)]).at(-1)?.mw).toBe(100)
})

test('one card without a limit leaves the machine without one', () => {
  expect(whole([at(0, 'a', 100, 300), at(0, 'b', 50)]).at(-1)?.cap).toBeUndefined()
})

test('a gap in the readings is a gap in the curve', () => {
  const points = withHoles(whole([0, 1, 2, 190, 191].map((s) => at(s * 1000, 'a', 10))))
  expect(points.map((point) => point.mw)).toEqual([10, 10, 10, undefined, 10, 10])
})

test('the range of nothing is unknown, not zero', () => {
  expect(range([])).toBeUndefined()
  expect(range(whole([at(0, 'a', 10), at(1, 'a', 30)]))).toEqual({ low: 10, high: 30 })
})

test('thinning keeps both ends', () => {
  expect(thinned([1, 2, 3, 4, 5, 6, 7, 8, 9], 3)).toEqual([1, 5, 9])
})
