import { describe, expect, test } from 'vitest'

import * as f from '../src/lib/format'

const said = (figure: f.Figure): string => f.together(figure).replaceAll('\u202f', ' ')
const plain = (text: string): string => text.replaceAll('\u202f', ' ')

describe('a figure has its unit and enough digits', () => {
  test.each([
    [0, '0 W'],
    [9_150, '9.2 W'],
    [38_400, '38 W'],
    [279_600, '280 W'],
    [1_450_000, '1,450 W'],
    [12_340_000, '12.3 kW'],
  ])('%d mW is %s', (mw, text) => expect(said(f.watts(mw))).toBe(text))

  test.each([
    [0, '0 J'],
    [1_234, '1.23 J'],
    [174_000, '174 J'],
    [1_366_000, '1,366 J'],
    [3_600_000, '1 Wh'],
    [50_300 * 3_600, '50.3 Wh'],
    [610 * 3_600_000, '610 Wh'],
    [1_280 * 3_600_000, '1.28 kWh'],
  ])('%d mJ is %s', (mj, text) => expect(said(f.energy(mj))).toBe(text))

  test.each([
    [0, '0 credits'],
    [1_000_000, '1 credit'],
    [7_600_000, '7.60 credits'],
    [1_284_000_000, '1,284 credits'],
    [2_345_678_900, '2,346 credits'],
    [12_500, '0.0125 credits'],
    [1, '0.000001 credits'],
    [-2_500_000, '-2.50 credits'],
  ])('%d µcredits are %s', (ucr, text) => expect(said(f.credits(ucr))).toBe(text))

  test('every micro-credit can be had', () => expect(plain(f.exactCredits(2_345_678_901))).toBe('2,345.678901 credits'))

  test('small money keeps its cents, and an unknown currency its name', () => {
    expect(f.money({ micros: 189_000, currency: 'EUR' })).toBe('€0.19')
    expect(f.money({ micros: 15_606, currency: 'EUR' })).toBe('€0.0156')
    expect(f.money({ micros: 172, currency: 'EUR' })).toBe('€0.000172')
    expect(f.money({ micros: 50, currency: 'EUR' })).toBe('€0.000050')
    expect(f.money({ micros: -4, currency: 'EUR' })).toBe('-€0.000004')
    expect(f.money({ micros: 0, currency: 'EUR' })).toBe('€0.00')
    expect(f.money({ micros: 1_000_000, currency: 'no such' })).toBe('1.00 no such')
  })

  test('an error is never understated', () => {
    expect(plain(f.plusMinus(18, 1_000))).toBe('± 1.8 %')
    expect(plain(f.plusMinus(181, 10_000))).toBe('± 1.9 %')
    expect(plain(f.plusMinus(301, 1_000))).toBe('± 31 %')
    expect(f.plusMinus(undefined, 1_000)).toBe('')
    expect(f.plusMinus(5, 0)).toBe('')
  })

  test('counts are short where they are long', () => {
    expect([9_999, 96_412, 1_234_567].map(f.count)).toEqual(['9,999', '96k', '1.23M'])
  })
})

describe('time', () => {
  test.each([
    [0, '0 ms'],
    [310, '310 ms'],
    [3_120, '3.1 s'],
    [59_949, '59.9 s'],
    [59_990, '1 min'],
    [80_000, '1 min 20 s'],
    [3_600_000, '1 h'],
    [20_400_000, '5 h 40 min'],
    [183_600_000, '2 d 3 h'],
  ])('%d ms is %s', (ms, text) => expect(plain(f.duration(ms))).toBe(text))

  const now = new Date(2026, 10, 21, 11, 30).getTime()
  test.each([
    [new Date(2026, 10, 21, 0, 5), '00:05'],
    [new Date(2026, 10, 20, 23, 10), 'yesterday 23:10'],
    [new Date(2026, 10, 22, 6, 0), 'tomorrow 06:00'],
    [new Date(2026, 10, 17, 19, 40), 'Tue 19:40'],
    [new Date(2026, 10, 14, 19, 40), '14 Nov 2026'],
  ])('%s is %s', (at, text) => expect(f.moment(at.getTime(), now)).toBe(text))

  test('what is ahead is rounded up to the minute, as the engine says it', () => {
    expect(f.moment(new Date(2026, 10, 21, 11, 43, 30).getTime(), now)).toBe('11:44')
    expect(f.moment(new Date(2026, 10, 21, 11, 44).getTime(), now)).toBe('11:44')
    expect(f.moment(new Date(2026, 10, 21, 11, 29, 59).getTime(), now)).toBe('11:29')
  })

  test('parts of energy add up to the whole as it is read', () => {
    const read = (parts: number[]): string[] => f.shares(parts).map((figure) => plain(f.together(figure)))
    expect(plain(f.together(f.energy(17_208_000)))).toBe('4.78 Wh')
    expect(read([12_544_000, 4_664_000, 0])).toEqual(['3.48 Wh', '1.30 Wh', '0.00 Wh'])
    expect(read([999, 0, 1])).toEqual(['1 J', '0 J', '0 J'])
  })

  test('yesterday is a day of the calendar, also where clocks change', () => {
    const after = new Date(2026, 9, 26, 0, 30).getTime()
    expect(f.moment(new Date(2026, 9, 25, 0, 10).getTime(), after)).toBe('yesterday 00:10')
  })
})

describe('a price that a host types', () => {
  test.each([
    ['12.5', 12_500_000],
    ['12,5', 12_500_000],
    ['0', 0],
    ['0.000001', 1],
    ['1000000', undefined],
    ['-1', undefined],
    ['1e3', undefined],
    ['', undefined],
    ['0.0000001', undefined],
  ])('%s is %s', (text, ucr) => expect(f.parsePrice(text)).toBe(ucr))

  test('reads back what it shows', () => {
    for (const ucr of [0, 1, 12_500_000, 999_999_999_999]) expect(f.parsePrice(f.priceInput(ucr))).toBe(ucr)
  })
})
