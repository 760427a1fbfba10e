import { expect, test } from 'vitest'

import { held, line, ticks, under, type Axis } from '../src/lib/plot'

const axis = (more: Partial<Axis>): Axis => ({ range: [0, 100], space: 40, said: (at, step) => `${at}/${step}`, ...more })
const said = (more: Partial<Axis>, pixels = 160): string[] => ticks(axis(more), pixels).map((tick) => tick.said)

test('an axis says round figures, as near as they may stand', () => {
  expect(said({ range: [0, 300_000] })).toEqual(['0/100000', '100000/100000', '200000/100000', '300000/100000'])
  expect(said({ range: [0.013, 0.0205] }).map((text) => Number(text.split('/')[0]).toFixed(3))).toEqual(['0.014', '0.016', '0.018', '0.020'])
  expect(said({ range: [0, 4.5] })).toEqual(['0/2', '2/2', '4/2'])
  expect(said({ range: [0, 100], within: [0, 50] })).toEqual(['0/50', '50/50'])
})

test('an axis without room, or without a range, says nothing and ends', () => {
  expect(said({ range: [5, 5] })).toEqual([])
  expect(said({ range: [0, NaN] })).toEqual([])
  expect(said({ range: [-Infinity, Infinity], within: [0, 1] })).toEqual([])
  expect(said({}, 0)).toEqual(['0/100', '100/100'])
})

test('times stand at the full hours of the clock on the wall, in any zone and across midnight', () => {
  const at = (hour: number, minute = 0): number => new Date(2026, 10, 21, hour, minute).getTime()
  const clocks = (from: number, to: number, pixels: number): string[] =>
    ticks(axis({ range: [from, to], time: true, space: 90, said: (at) => new Date(at).toTimeString().slice(0, 8) }), pixels).map((tick) => tick.said)
  expect(clocks(at(21, 10), at(28, 40), 400)).toEqual(['22:00:00', '00:00:00', '02:00:00', '04:00:00'])
  expect(clocks(at(11, 20), at(11, 30), 500)).toEqual(['11:20:00', '11:22:00', '11:24:00', '11:26:00', '11:28:00', '11:30:00'])
  expect(clocks(at(0), at(96), 500)).toEqual(['00:00:00', '00:00:00', '00:00:00', '00:00:00', '00:00:00'])
})

test('a line breaks where a reading is missing', () => {
  expect(line([[0, 1], [1, 2], [2, undefined], [3, 4]])).toBe('M0 1L1 2M3 4')
  expect(line([[0, undefined]])).toBe('')
})

test('many readings in one column of pixels are drawn as their range: no peak is lost', () => {
  const places = Array.from({ length: 1000 }, (_, i) => [i / 100, i === 637 ? 99 : 10] as const)
  const path = line(places)
  expect(path).toContain(' 99L')
  expect(path.split('L').length).toBeLessThan(25)
})

test('a limit holds until the next one', () => {
  expect(line(held([[0, 10], [5, 10], [9, 4], [12, undefined], [14, 4]]))).toBe('M0 10L5 10L9 10L9 4L12 4M14 4')
})

test('what lies under a line ends where each of its parts ends', () => {
  expect(under('M0 1L1 2M3 4', 9)).toBe('M0 9L0 1L1 2L1 9ZM3 9L3 4L3 9Z')
  expect(under('', 9)).toBe('')
})
