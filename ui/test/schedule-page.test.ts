import { cleanup, fireEvent, render, screen, waitFor, within } from '@testing-library/svelte'
import userEvent from '@testing-library/user-event'
import axe from 'axe-core'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import App from '../src/App.svelte'
import { away, FixtureBackend, fresh, type World } from '../src/lib/backend/fixture'
import type { Request } from '../src/lib/generated/control'
import { m } from '../src/lib/messages'

const NOW = new Date(2026, 10, 21, 11, 30).getTime()

beforeEach(() => {
  vi.setSystemTime(NOW)
  location.hash = '#/schedule'
  dispatchEvent(new HashChangeEvent('hashchange'))
})
afterEach(() => {
  cleanup()
  vi.useRealTimers()
})

async function open(change: (world: World) => void = () => undefined, world = away) {
  const backend = new FixtureBackend((now) => {
    const made = structuredClone(world(now))
    change(made)
    return made
  }, NOW)
  const user = userEvent.setup()
  render(App, { backend })
  await screen.findByRole('grid')
  return { backend, user }
}

/** Sets a setting of the world before the page opens. */
const setting = (key: string, value: string) => (world: World): void => {
  for (const entry of world.config) if (entry.key === key) entry.value = value
}
const windows = (text: string) => setting('share.windows', text)

const sent = (backend: FixtureBackend): Request[] => backend.asked.filter((request) => request.type === 'set_config')
const slot = (name: string): HTMLElement => screen.getByRole('gridcell', { name: new RegExp(`^${name}`) })
const text = (): HTMLElement => screen.getByLabelText(m.schedule.asText)

async function faults(): Promise<string[]> {
  const { violations } = await axe.run(document, { rules: { 'color-contrast': { enabled: false } } })
  return violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(' ')}`)
}

test.each([['away', away], ['fresh', fresh]] as const)('has no fault that axe can see: %s', async (_, world) => {
  await open(undefined, world)
  expect(await faults()).toEqual([])
})

describe('the week', () => {
  test('shows what the setting says, and says it of each day', async () => {
    await open()
    expect(slot('Monday 22:00–22:30')).toHaveAccessibleName('Monday 22:00–22:30, shared')
    expect(slot('Monday 12:00–12:30')).toHaveAccessibleName('Monday 12:00–12:30, not shared')
    expect(screen.getByRole('rowheader', { name: 'Monday: 22:00–24:00 shared' })).toBeVisible()
    expect(screen.getByRole('rowheader', { name: 'Tuesday: 00:00–07:00 and 22:00–24:00 shared' })).toBeVisible()
    expect(screen.getByRole('rowheader', { name: 'Sunday: 00:00–24:00 shared' })).toBeVisible()
  })

  test('is one stop for the Tab key, is walked by arrows, and keeps within its edges', async () => {
    const { user } = await open()
    expect(screen.getAllByRole('gridcell').filter((cell) => cell.tabIndex === 0)).toHaveLength(1)
    slot('Monday 22:00').focus()
    await user.keyboard('{ArrowRight}{ArrowDown}')
    expect(slot('Tuesday 22:30')).toHaveFocus()
    await user.keyboard('{Home}{ArrowLeft}{PageUp}{ArrowUp}')
    expect(slot('Monday 00:00')).toHaveFocus()
    await user.keyboard('{Control>}{End}{/Control}{ArrowRight}{ArrowDown}')
    expect(slot('Sunday 23:30')).toHaveFocus()
  })

  test('Space paints what Shift and arrows marked, and says so', async () => {
    const { backend, user } = await open(windows('never'))
    slot('Monday 22:00').focus()
    await user.keyboard('{Shift>}{ArrowRight}{ArrowRight}{ArrowRight}{ArrowDown}{/Shift}')
    expect(screen.getByText('Monday to Tuesday 22:00–24:00 marked')).toBeInTheDocument()
    expect(screen.getAllByRole('gridcell', { selected: true })).toHaveLength(8)
    await user.keyboard(' ')
    expect(screen.getByText('Monday to Tuesday 22:00–24:00 shared')).toBeInTheDocument()
    expect(text()).toHaveValue('Mon-Tue 22:00-24:00')
    await user.keyboard(' ')
    expect(text()).toHaveValue('never')
    expect(sent(backend)).toEqual([])
  })

  test('a drag paints from corner to corner, Escape takes it back', async () => {
    const { user } = await open(windows('never'))
    const grid = screen.getByRole('grid')
    grid.setPointerCapture = () => undefined
    // 48 slots of 10 px, seven days of 20 px.
    slot('Monday 00:00').getBoundingClientRect = () => new DOMRect(100, 0, 10, 20)
    slot('Sunday 23:30').getBoundingClientRect = () => new DOMRect(570, 120, 10, 20)
    const at = (slot: number, day: number) => ({ button: 0, clientX: 105 + 10 * slot, clientY: 10 + 20 * day, pointerId: 1 })
    await fireEvent.pointerDown(slot('Wednesday 10:00'), at(20, 2))
    await fireEvent.pointerMove(grid, at(23, 4))
    expect(screen.getByText('Wednesday to Friday 10:00–12:00')).toBeVisible()
    await user.keyboard('{Escape}')
    await fireEvent.pointerUp(grid, at(23, 4))
    expect(text()).toHaveValue('never')
    await fireEvent.pointerDown(slot('Wednesday 10:00'), at(20, 2))
    await fireEvent.pointerMove(grid, at(900, 4))
    await fireEvent.pointerMove(grid, at(23, 4))
    await fireEvent.pointerUp(grid, at(23, 4))
    expect(text()).toHaveValue('Wed-Fri 10:00-12:00')
    // Begun on what is shared, a drag clears.
    await fireEvent.pointerDown(slot('Thursday 10:00'), at(20, 3))
    await fireEvent.pointerMove(grid, at(23, 3))
    await fireEvent.pointerUp(grid, at(23, 3))
    expect(text()).toHaveValue('Wed 10:00-12:00, Fri 10:00-12:00')
  })

  test('a ready-made week is one click, and is seen to hold', async () => {
    const { user } = await open()
    await user.click(screen.getByRole('button', { name: m.schedule.preset.nights }))
    expect(text()).toHaveValue('Mon-Sun 22:00-07:00')
    expect(screen.getByRole('button', { name: m.schedule.preset.nights })).toHaveAttribute('aria-pressed', 'true')
    await user.click(screen.getByRole('button', { name: m.schedule.preset.never }))
    expect(slot('Monday 22:00')).toHaveAccessibleName(/not shared$/)
  })

  test('painted back to what is in force, nothing is left to save', async () => {
    const { user } = await open()
    slot('Monday 12:00').focus()
    await user.keyboard(' ')
    expect(screen.getByText(m.schedule.unsaved(1))).toBeVisible()
    await user.keyboard(' ')
    expect(screen.queryByText(m.schedule.unsaved(1))).toBeNull()
  })

  test('hours finer than the grid are said, and not painted over unasked', async () => {
    const { user } = await open(windows('Mon-Fri 22:15-06:45'))
    expect(screen.getByText(m.schedule.finer)).toBeVisible()
    expect(screen.getByRole('grid')).toHaveAttribute('aria-readonly', 'true')
    expect(slot('Monday 22:00')).toHaveAccessibleName('Monday 22:00–22:30, shared in part')
    slot('Monday 12:00').focus()
    await user.keyboard(' ')
    expect(text()).toHaveValue('Mon-Fri 22:15-06:45')
    await user.click(screen.getByRole('button', { name: m.schedule.useGrid }))
    slot('Monday 12:00').focus()
    await user.keyboard(' ')
    expect(text()).toHaveValue('Mon 12:00-12:30, Mon-Fri 22:30-06:30')
  })
})

describe('what is not saved', () => {
  test('is asked of the engine once typing stops, and what is wrong is said at its field', async () => {
    const { backend, user } = await open()
    await user.clear(text())
    await user.type(text(), 'Fry 22:00')
    await waitFor(() => expect(text()).toHaveAttribute('aria-invalid', 'true'))
    expect(text()).toHaveAccessibleDescription(/no value for share.windows/)
    const previews = backend.asked.filter((request) => request.type === 'preview')
    expect(previews.length).toBeLessThan(6)
    // The grid goes on showing the last week that could be read.
    expect(slot('Monday 22:00')).toHaveAccessibleName(/shared$/)
    await user.clear(text())
    await user.type(text(), 'Fri 22:00-23:00')
    await waitFor(() => expect(backend.asked.at(-1)).toEqual({ type: 'preview', settings: { 'share.windows': 'Fri 22:00-23:00' } }))
    expect(text()).toHaveAttribute('aria-invalid', 'false')
    expect(screen.getByRole('list', { name: `${m.schedule.ahead}, ${m.schedule.aheadUnsaved}` })).toBeVisible()
  })

  test('is kept on another page, saved key by key, and what is refused stays with its reason', async () => {
    const { backend, user } = await open()
    await user.click(screen.getByRole('button', { name: m.schedule.preset.weekends }))
    const idle = screen.getByRole('textbox', { name: 'Share once nobody has touched this machine for ….' })
    await user.clear(idle)
    await user.type(idle, 'soon')
    expect(screen.getByText(m.schedule.unsaved(2), { exact: false })).toBeVisible()
    await user.click(screen.getByRole('link', { name: m.page.models }))
    await user.click(screen.getByRole('link', { name: m.page.schedule }))
    expect(await screen.findByText(m.schedule.unsaved(2), { exact: false })).toBeVisible()
    await user.click(screen.getByRole('button', { name: m.save }))
    await waitFor(() => expect(screen.getByText(m.schedule.unsaved(1), { exact: false })).toBeVisible())
    expect(sent(backend)).toEqual([
      { type: 'set_config', key: 'share.windows', value: 'Sat-Sun 00:00-24:00' },
      { type: 'set_config', key: 'share.idle_after', value: 'soon' },
    ])
    expect(screen.getByRole('textbox', { name: 'Share once nobody has touched this machine for ….' })).toHaveAccessibleDescription(/no value for share.idle_after/)
    expect(await faults()).toEqual([])
    await user.click(screen.getByRole('button', { name: m.schedule.undo }))
    expect(screen.getByRole('textbox', { name: 'Share once nobody has touched this machine for ….' })).toHaveValue('10m')
    expect(screen.queryByText(m.schedule.undo)).toBeNull()
  })
})

describe('rules', () => {
  test('are sentences with their value in its place', async () => {
    const { user } = await open()
    const games = screen.getByRole('combobox', { name: 'While a game runs, ….' })
    expect(games).toHaveDisplayValue('pause')
    await user.selectOptions(games, 'go on')
    expect(screen.getByText(m.schedule.was('pause'))).toBeVisible()
  })

  test('a program is chosen from those that run, the likely first, and may go on under a lower cap', async () => {
    const { backend, user } = await open(setting('share.apps', 'OBS Studio=cap'))
    expect(screen.getByRole('combobox', { name: m.schedule.whileApp('OBS Studio') })).toHaveDisplayValue(m.schedule.appCap)
    await user.click(screen.getByRole('button', { name: m.schedule.addApp }))
    const list = await screen.findByRole('list', { name: m.schedule.running })
    expect(within(list).getAllByRole('button').map((button) => button.textContent)).toEqual(['blender', 'darktable', 'firefox', 'pipewire', 'systemd'])
    await user.type(screen.getByLabelText(m.schedule.appName), 'dark')
    await user.click(within(list).getByRole('button', { name: 'darktable' }))
    await user.type(screen.getByLabelText(m.schedule.appName), '/opt/render, 2{Enter}')
    await user.selectOptions(screen.getByRole('combobox', { name: m.schedule.whileApp('darktable') }), m.schedule.appCap)
    await user.click(screen.getByRole('button', { name: m.schedule.remove('OBS Studio') }))
    expect(await faults()).toEqual([])
    await user.click(screen.getByRole('button', { name: m.save }))
    await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'share.apps', value: 'darktable=cap, /opt/render  2' }]))
  })

  test('keeping awake is offered where it would have helped', async () => {
    const { user } = await open()
    expect(await screen.findByText('Your PC slept 5 h 40 of your 9 h window.')).toBeVisible()
    await user.click(screen.getByRole('button', { name: m.overview.keepAwake }))
    expect(screen.getByRole('combobox', { name: 'While it shares, ….' })).toHaveDisplayValue('keep this machine awake')
  })
})

describe('once', () => {
  test('a pause has a length or an end, sharing now has a length', async () => {
    const { backend, user } = await open()
    await user.selectOptions(screen.getByLabelText(m.schedule.pauseFor), 'for 2 hours')
    await user.click(screen.getByRole('button', { name: m.schedule.pause }))
    expect(backend.asked).toContainEqual({ type: 'pause', until: 'seconds', seconds: 7200 })
    await user.selectOptions(screen.getByLabelText(m.schedule.pauseFor), 'until…')
    expect(screen.getByRole('button', { name: m.schedule.pause })).toBeDisabled()
    await fireEvent.input(screen.getByLabelText(m.schedule.pauseUntil), { target: { value: '2026-11-22T08:00' } })
    await user.click(screen.getByRole('button', { name: m.schedule.pause }))
    expect(backend.asked).toContainEqual({ type: 'pause', until: 'at', at: new Date(2026, 10, 22, 8).getTime() })
    await user.click(screen.getByRole('button', { name: m.schedule.shareNow }))
    expect(backend.asked).toContainEqual({ type: 'share_now', seconds: 3600 })
  })

  test('a day that is different is added and removed', async () => {
    const { backend, user } = await open()
    expect(screen.getByText('Thu 24 Dec, 18:00 – Sat 26 Dec, 12:00')).toBeVisible()
    await user.click(screen.getByRole('button', { name: /^Remove 2026-12-24/ }))
    await fireEvent.input(screen.getByLabelText(m.schedule.exceptionFrom), { target: { value: '2026-11-28T20:00' } })
    await fireEvent.input(screen.getByLabelText(m.schedule.exceptionTo), { target: { value: '2026-11-28T19:00' } })
    expect(screen.getByRole('button', { name: m.schedule.add })).toBeDisabled()
    await fireEvent.input(screen.getByLabelText(m.schedule.exceptionTo), { target: { value: '2026-11-29T02:00' } })
    await user.click(screen.getByRole('button', { name: m.schedule.add }))
    await user.click(screen.getByRole('button', { name: m.save }))
    await waitFor(() =>
      expect(sent(backend)).toEqual([{ type: 'set_config', key: 'share.exceptions', value: '2026-12-31 20:00 - 23:00 open; 2026-11-28 20:00 - 2026-11-29 02:00 closed' }]),
    )
  })
})
