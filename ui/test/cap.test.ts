import { describe, expect, test } from 'vitest'

import { chosen, parseWatts, withCap } from '../src/lib/cap'
import { curve, thriftiest } from '../src/lib/sweep'
import type { BenchPoint, BenchReport } from '../src/lib/generated/control'

describe('a cap is set for one card and leaves the others as they are', () => {
  test.each([
    ['one card', '', ['A'], 240, '240'],
    ['one card again', '280', ['A'], 240, '240'],
    ['taken back', '280', ['A'], undefined, ''],
    ['for all before', '280', ['A', 'B'], 240, 'A=240, B=280'],
    ['nothing before', '', ['A', 'B'], 240, 'A=240'],
    ['each before', 'A=100, B=200 W', ['A', 'B'], 240, 'A=240, B=200 W'],
    ['one of two taken back', 'A=100, B=200', ['A', 'B'], undefined, 'B=200'],
    ['a card that is not here', 'A=100, Z=90', ['A'], 240, 'A=240, Z=90'],
    ['the last but a card that is not here', 'A=100, Z=90', ['A'], undefined, 'Z=90'],
    ['the beginning of an id', 'A-=100', ['A-1', 'B-1'], 240.5, 'A-1=240.5'],
    ['the beginning of two ids', 'A-=100', ['A-1', 'A-2'], 240, 'A-1=240, A-2=100'],
  ])('%s', (_, text, cards, watts, wanted) => expect(withCap(text, cards, cards[0] ?? '', watts)).toBe(wanted))

  test('whether somebody chose is known', () => {
    expect(chosen('', 'A')).toBeUndefined()
    expect(chosen('280', 'A')).toBe('280')
    expect(chosen('B=280', 'A')).toBeUndefined()
  })

  test.each([
    ['280', 280], ['62,5 W', 62.5], [' 100w', 100], ['', undefined], ['-5', undefined], ['1e3', undefined], ['much', undefined],
  ])('%j is %s W', (text, watts) => expect(parseWatts(text)).toBe(watts))
})

describe('the thriftiest cap', () => {
  const at = (cap_mw: number | undefined, uj: number | undefined, error: number): BenchPoint => ({
    ...(cap_mw === undefined ? {} : { cap_mw }),
    repeats: 3, label: 'measured', prefill: { milli_tokens_per_s: 0 },
    decode: { milli_tokens_per_s: 1, ...(uj === undefined ? {} : { uj_per_token: uj }), error_uj: error },
  })
  const of = (...points: BenchPoint[]): BenchReport => ({ workload: '', version: '', started: 0, gpus: [], server: '', artefact: { model: '', engine: '' }, method: '', points })

  test('is the one with least energy a token, and says which others the errors cannot tell from it', () => {
    const found = thriftiest(curve(of(at(300, 120, 5), at(200, 100, 5), at(250, 106, 5), at(100, 180, 5))))
    expect(found?.best.cap).toBe(200)
    expect(found?.alike.map((one) => one.cap)).toEqual([250])
  })

  test('counts no point without a cap or without energy', () => {
    expect(curve(of(at(undefined, 100, 1), at(200, undefined, 1)))).toEqual([])
    expect(thriftiest([])).toBeUndefined()
  })
})
