// What the pictures share: room around what is drawn, round figures for the axes, and lines through readings.

/** Room around the drawn area, in CSS pixels; what lies over a plot counts on it. */
export const room = { top: 10, right: 18, bottom: 28, left: 54 }

/** Both ends of a scale. */
export type Range = [from: number, to: number]

export interface Axis {
  range: Range
  /** What stands at a figure; `step` is how far the next one is. */
  said: (at: number, step: number) => string
  /** Only figures in here are said, and have a line through the picture. */
  within?: Range
  /** Least distance between two figures, in CSS pixels. */
  space: number
  /** In milliseconds since 1970: figures stand at full hours, minutes and seconds of the clock on the wall. */
  time?: boolean
  /** At the right, where the left is taken. */
  right?: boolean
}

/** The drawn area in CSS pixels, and where a value is in it. */
export interface Frame {
  left: number
  right: number
  top: number
  bottom: number
  x: (at: number) => number
  /** On the first axis of values unless told. */
  y: (at: number, range?: Range) => number
}

export interface Tick {
  at: number
  said: string
}

const S = 1000
const MIN = 60 * S
const HOUR = 60 * MIN
const TIMES = [S, 2 * S, 5 * S, 10 * S, 15 * S, 30 * S, MIN, 2 * MIN, 5 * MIN, 10 * MIN, 15 * MIN, 30 * MIN, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR]

/** Round figures over `pixels`, none nearer to the next than the axis wants. */
export function ticks({ range: [from, to], said, within, space, time }: Axis, pixels: number): Tick[] {
  const most = Math.max(1, Math.floor(pixels / space))
  const least = (to - from) / most
  if (!(least > 0)) return []
  const step = (time ? TIMES.find((step) => step >= least) : undefined) ?? round(least, time ? 24 * HOUR : 1)
  const shift = time ? new Date(from).getTimezoneOffset() * MIN : 0
  const found: Tick[] = []
  for (let i = Math.ceil((from - shift) / step); i * step + shift <= to; i++) {
    const at = i * step + shift
    if (within === undefined || (at >= within[0] && at <= within[1])) found.push({ at, said: said(at, step) })
  }
  return found
}

/** The next of 1, 2, 5, 10, … times `unit` that is no less. */
function round(least: number, unit: number): number {
  const power = 10 ** Math.floor(Math.log10(least / unit))
  return unit * power * ([1, 2, 5].find((step) => step * power * unit >= least) ?? 10)
}

/**
 * A line through these places, broken where a value is missing. Of many readings in one column of pixels the first, the
 * lowest, the highest and the last are drawn: no peak is lost, and a night of readings weighs no more than a minute.
 */
export function line(places: Iterable<readonly [x: number, y: number | undefined]>): string {
  let path = ''
  let column: { x: number; ys: number[] } | undefined
  let pen = 'M'
  const flush = (): void => {
    if (column === undefined) return
    const { x, ys } = column
    for (const y of new Set([ys[0], Math.min(...ys), Math.max(...ys), ys.at(-1)])) {
      path += `${pen}${x} ${tenth(y ?? 0)}`
      pen = 'L'
    }
    column = undefined
  }
  for (const [at, y] of places) {
    const x = tenth(at)
    if (y === undefined) {
      flush()
      pen = 'M'
    } else if (column !== undefined && Math.floor(column.x) === Math.floor(x)) column.ys.push(y)
    else {
      flush()
      column = { x, ys: [y] }
    }
  }
  flush()
  return path
}

/** The same places as steps: a value holds until the next one. */
export function* held(places: Iterable<readonly [x: number, y: number | undefined]>): Generator<readonly [number, number | undefined]> {
  let before: number | undefined
  for (const [x, y] of places) {
    if (before !== undefined && before !== y) yield [x, before]
    yield [x, y]
    before = y
  }
}

/** What lies between a line of {@link line} and the height `bottom`. */
export function under(path: string, bottom: number): string {
  return path.replace(/M([^M]+)/g, (_, run: string) => {
    const [first, last] = [run, run.split('L').at(-1) ?? run].map((place) => place.split(' ')[0])
    return `M${first} ${bottom}L${run}L${last} ${bottom}Z`
  })
}

function tenth(value: number): number {
  return Math.round(value * 10) / 10
}
