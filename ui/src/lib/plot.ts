// What the plots share: their room, their axes, and colours as a canvas wants them.

import type uPlot from 'uplot'

/** Room around the drawn area, in CSS pixels; what lies over a plot counts on it. */
export const room = { top: 10, right: 18, bottom: 28, left: 54 }

/** A token's colour in the theme in force: `colour('--watt')`. */
export type Colour = (token: string) => string

/** What a plot adds to what {@link file://./parts/Plot.svelte} sets for all. */
export type Drawing = Pick<uPlot.Options, 'axes' | 'series' | 'padding' | 'hooks'>

/** Reads colours through an element that is on the page. */
export function colours(beside: HTMLElement): Colour {
  return (token) => {
    const probe = document.createElement('i')
    probe.style.color = `var(${token})`
    beside.append(probe)
    const found = getComputedStyle(probe).color
    probe.remove()
    return found
  }
}

export function axis(colour: Colour, side: 'x' | 'y', more: uPlot.Axis): uPlot.Axis {
  return {
    stroke: colour('--faint'),
    font: `12px ${getComputedStyle(document.documentElement).fontFamily}`,
    grid: { show: side === 'y', stroke: colour('--line'), width: 1 },
    ticks: { show: false },
    border: { show: false },
    ...(side === 'x' ? { size: room.bottom, space: 90 } : { size: room.left, space: 40 }),
    ...more,
  }
}
