import { describe, expect, test } from 'vitest'

import { empty, exact, fromText, paint, SLOTS, toText, type Week } from '../src/lib/week'

const week = (text: string): Week => {
  const found = fromText(text)
  if (found === undefined) throw new Error(`not read: ${text}`)
  return found
}
const open = (week: Week): number => week.flat().filter((slot) => slot === true).length

describe('text and grid say the same', () => {
  test.each([
    'always',
    'never',
    'Mon-Sun 22:00-07:00',
    'Mon-Fri 22:00-07:00',
    'Mon-Fri 22:00-07:00, Sat-Sun 08:30-12:00',
    'Sat-Sun 00:00-24:00',
    'Wed 12:30-13:00',
    'Sun 22:00-07:00',
    'Sat-Mon 10:00-11:00',
    'Mon 00:00-00:30, Sun 23:00-23:30',
    'Mon 09:00-10:00, Mon 11:00-12:00, Wed-Thu 09:00-10:00',
    'Mon 12:00-24:00, Tue 00:00-12:00',
  ])('%s', (text) => {
    expect(toText(week(text))).toBe(text)
  })

  test('for any week at all', () => {
    let seed = 7
    const next = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % below
    for (let i = 0; i < 300; i += 1) {
      let any = empty()
      for (let blocks = next(7); blocks >= 0; blocks -= 1) {
        any = paint(any, { day: [next(7), next(7)], slot: [next(SLOTS), next(SLOTS)] }, next(4) > 0)
      }
      expect(week(toText(any)), toText(any)).toEqual(any)
    }
  })
})

describe('a text is written plainly', () => {
  test.each([
    ['mon-fri 22:00-24:00, tue-sat 0:00-7:00', 'Mon-Fri 22:00-07:00'],
    ['Monday 09:00-09:30, Mon 09:30-10:00', 'Mon 09:00-10:00'],
    ['22:00-07:00', 'Mon-Sun 22:00-07:00'],
    ['Sat-Sun', 'Sat-Sun 00:00-24:00'],
    ['Mon-Sun 00:00-24:00', 'always'],
    ['Mon 07:00-00:00', 'Mon 07:00-24:00'],
    ['Fri 22:00-24:00, Sat-Sun, Mon 00:00-07:00', 'Mon 00:00-07:00, Fri 22:00-24:00, Sat-Sun 00:00-24:00'],
  ])('%s is %s', (text, plain) => {
    expect(toText(week(text))).toBe(plain)
  })
})

test('what begins between two half hours is open in part, and the grid says that it is not exact', () => {
  const fine = week('Mon 22:15-23:40')
  expect(exact(fine)).toBe(false)
  // 22:00 in part, 22:30 and 23:00 in full, 23:30 in part.
  expect(fine[0]?.slice(43)).toEqual([false, 'part', true, true, 'part'])
  expect(open(fine)).toBe(2)
  expect(exact(week('Mon 22:00-22:15, Mon 22:15-23:00'))).toBe(true)
})

test.each(['', 'soon', 'Mo 10:00-11:00', 'Mon 10:00', 'Mon 10:00-10:00', 'Mon 24:00-01:00', 'Mon 10:60-11:00', 'Mon 10:00-25:00', 'Mon 10-11', 'Mon 10:00-11:00,', 'Mon-Fry 10:00-11:00'])(
  'what the engine would refuse is no week: %j',
  (text) => expect(fromText(text)).toBeUndefined(),
)

test('a block is painted from any corner to any other', () => {
  const block = paint(empty(), { day: [3, 1], slot: [10, 4] }, true)
  expect(open(block)).toBe(3 * 7)
  expect(block[1]?.[4]).toBe(true)
  expect(block[3]?.[10]).toBe(true)
  expect(open(paint(block, { day: [2, 2], slot: [0, 47] }, false))).toBe(2 * 7)
})
