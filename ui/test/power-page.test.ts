import { cleanup, fireEvent, render, screen, waitFor, within } from '@testing-library/svelte'
import userEvent from '@testing-library/user-event'
import axe from 'axe-core'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import App from '../src/App.svelte'
import { FixtureBackend, fresh, live, mixed, type World } from '../src/lib/backend/fixture'
import type { Request } from '../src/lib/generated/control'
import { m } from '../src/lib/messages'

const NOW = new Date(2026, 10, 21, 11, 30).getTime()
const CARD = 'NVIDIA GeForce RTX 4090'

beforeEach(() => {
  vi.setSystemTime(NOW)
  location.hash = '#/power'
  dispatchEvent(new HashChangeEvent('hashchange'))
})
afterEach(() => {
  cleanup()
  vi.useRealTimers()
})

async function open(world: (now: number) => World = live) {
  const backend = new FixtureBackend(world, NOW)
  const user = userEvent.setup()
  render(App, { backend })
  await screen.findByRole('heading', { level: 1 })
  return { backend, user }
}

const sent = (backend: FixtureBackend): Request[] => backend.asked.filter((request) => request.type === 'set_config')
const slider = (): HTMLElement => screen.getByRole('slider', { name: m.powerPage.capOf(CARD) })
const field = (): HTMLElement => within(screen.getByRole('region', { name: CARD })).getByLabelText(m.powerPage.cap)

async function faults(): Promise<string[]> {
  const { violations } = await axe.run(document, { rules: { 'color-contrast': { enabled: false } } })
  return violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(' ')}`)
}

test.each([['live', live], ['mixed', mixed], ['fresh', fresh]] as const)('has no fault that axe can see: %s', async (_, world) => {
  await open(world)
  expect(await faults()).toEqual([])
})

describe('the cap', () => {
  test('is a slider over the card’s own range', async () => {
    await open()
    expect(slider()).toHaveAttribute('aria-valuemin', '150')
    expect(slider()).toHaveAttribute('aria-valuemax', '600')
    expect(slider()).toHaveAttribute('aria-valuenow', '280')
    expect(slider()).toHaveAttribute('aria-orientation', 'vertical')
  })

  test('moves by arrows and pages, stays in the range, and is kept by Enter', async () => {
    const { backend, user } = await open()
    slider().focus()
    await user.keyboard('{ArrowUp}{ArrowRight}{ArrowDown}{PageDown}')
    expect(slider()).toHaveAttribute('aria-valuenow', '260')
    await user.keyboard('{End}{ArrowUp}')
    expect(slider()).toHaveAttribute('aria-valuenow', '600')
    await user.keyboard('{Home}{ArrowDown}')
    expect(slider()).toHaveAttribute('aria-valuenow', '150')
    expect(sent(backend)).toEqual([])
    await user.keyboard('{PageUp}{Enter}')
    await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'power.cap', value: '175' }]))
    expect(await screen.findByText('Your cap of 175 W.')).toBeVisible()
    expect(slider()).toHaveAttribute('aria-valuenow', '175')
  })

  test('is kept by leaving it, and not by Escape', async () => {
    const { backend, user } = await open()
    slider().focus()
    await user.keyboard('{ArrowUp}{Escape}')
    expect(slider()).toHaveAttribute('aria-valuenow', '280')
    await user.tab()
    expect(sent(backend)).toEqual([])
    slider().focus()
    await user.keyboard('{ArrowUp}')
    await user.tab()
    await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'power.cap', value: '285' }]))
  })

  test('typed out of the range is refused before it is sent, with the range', async () => {
    const { backend, user } = await open()
    await user.clear(field())
    await user.type(field(), '610{Enter}')
    expect(screen.getByRole('alert')).toHaveTextContent(m.powerPage.outside('150', '600'))
    expect(field()).toBeInvalid()
    expect(screen.getByRole('button', { name: m.save })).toBeDisabled()
    expect(slider()).toHaveAttribute('aria-valuenow', '280')
    expect(sent(backend)).toEqual([])
    await user.clear(field())
    await user.type(field(), '239.5')
    expect(slider()).toHaveAttribute('aria-valuenow', '239.5')
    await user.keyboard('{Enter}')
    await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'power.cap', value: '239.5' }]))
  })

  test('that the engine refuses goes back, and says why where it happened', async () => {
    const { user } = await open()
    await user.clear(field())
    await user.type(field(), '599{Enter}')
    const card = within(screen.getByRole('region', { name: CARD }))
    expect(await card.findByRole('alert')).toHaveTextContent('The settings could not be written.')
    expect(field()).toHaveValue('599')
    expect(await faults()).toEqual([])
    await user.click(card.getByRole('button', { name: m.cancel }))
    expect(slider()).toHaveAttribute('aria-valuenow', '280')
  })

  test('of one card of several leaves the others as they are', async () => {
    const { backend, user } = await open(mixed)
    screen.getByRole('slider', { name: m.powerPage.capOf('AMD Radeon RX 7900 XTX') }).focus()
    await user.keyboard('{ArrowDown}{Enter}')
    await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'power.cap', value: 'GPU-1=280, 0000:2d:00.0=279' }]))
  })

  test('can go back to the default where it was chosen, and only there', async () => {
    const { backend, user } = await open(mixed)
    const [reset] = screen.getAllByRole('button', { name: m.settings.reset })
    expect(within(screen.getByRole('region', { name: /7900/ })).queryByRole('button', { name: m.settings.reset })).toBeNull()
    await user.click(reset as HTMLElement)
    await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'power.cap', value: '' }]))
  })
})

describe('live', () => {
  test('watts are the last reading', async () => {
    const { backend } = await open()
    backend.say({ type: 'sample', value: { at: NOW + 1, gpu: 'GPU-1', power_mw: 123_400, cap_mw: 280_000, running: 1 } })
    await waitFor(() => expect(screen.getByRole('region', { name: CARD })).toHaveTextContent('123 W'))
  })

  test('the curve is also a table, and back', async () => {
    const { user } = await open()
    const card = within(screen.getByRole('region', { name: CARD }))
    await user.click(card.getByRole('button', { name: m.asTable }))
    expect(within(card.getByRole('region', { name: m.powerPage.chart(CARD) })).getAllByRole('row')).toHaveLength(61)
    await user.click(card.getByRole('button', { name: m.asPicture }))
    expect(card.getByRole('img', { name: /Power from .* limit 280.W/ })).toBeVisible()
    expect(slider()).toBeVisible()
  })

  test('the limit that binds and who holds it are named', async () => {
    await open(mixed)
    const card = within(screen.getByRole('region', { name: CARD }))
    expect(card.getByText(/^Temperature: at 77 °C/)).toBeVisible()
    expect(card.getByText(/Install the helper/)).toBeVisible()
    expect(screen.getByText(m.powerPage.cards('187 W'), { exact: false })).toBeVisible()
  })

  test('a card asleep and a card that tells nothing are said to be so, never zero', async () => {
    await open(mixed)
    expect(within(screen.getByRole('region', { name: /7900/ })).getByText(m.powerPage.asleepWhy)).toBeVisible()
    const arc = within(screen.getByRole('region', { name: /Arc/ }))
    expect(arc.getByText(/its energy stays unknown/)).toBeVisible()
    expect(arc.getByText(m.label.unknown)).toBeVisible()
  })
})

describe('energy and money', () => {
  test('today and this month have their split, and gross, cost and net apart', async () => {
    await open()
    const today = within(screen.getByRole('region', { name: m.powerPage.account(m.overview.today) }))
    expect(today.getByRole('img', { name: /answering .* waiting .* awake/ })).toBeVisible()
    expect(today.getByText(m.powerPage.ofMost('4 kWh'))).toBeVisible()
    expect(today.getByText(m.overview.gross)).toBeVisible()
    expect(today.getByText(m.overview.cost)).toBeVisible()
    expect(today.getByText(m.overview.noNet)).toHaveAttribute('href', '#/settings/earnings.credit_value')
    expect(screen.getByRole('region', { name: m.powerPage.account(m.powerPage.month) })).toHaveTextContent('13.9 kWh')
  })

  test('a token’s energy has its error or its label', async () => {
    await open()
    const table = within(screen.getByRole('region', { name: m.powerPage.modelsTable }))
    expect(table.getByRole('row', { name: /qwen3/ })).toHaveTextContent('2.83 J/token ± 1.9 %')
    expect(table.getByRole('row', { name: /nomic/ })).toHaveTextContent('unknown')
  })

  test('not profitable is said in words', async () => {
    await open(mixed)
    expect(screen.getByText(m.powerPage.notProfitable)).toBeVisible()
  })
})

describe('the curve of a bench', () => {
  test('names the thriftiest cap, and sets it with one press', async () => {
    const { backend, user } = await open()
    expect(screen.getByText(/Thriftiest at 240.W: 2\.61.J\/token ± 2\.6.%, 86\.5 tokens\/s\. 280.W is as good within the errors\. 450.W is 25 % faster and takes 45 % more\./)).toBeVisible()
    await user.click(screen.getByRole('button', { name: /^Cap at 240/ }))
    await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'power.cap', value: '240' }]))
    await waitFor(() => expect(slider()).toHaveAttribute('aria-valuenow', '240'))
    expect(screen.queryByRole('button', { name: /^Cap at 240/ })).toBeNull()
  })

  test('is also a table, and another run can be chosen', async () => {
    const { user } = await open()
    const benches = within(screen.getByRole('region', { name: m.powerPage.sweep }))
    await user.click(benches.getByRole('button', { name: m.asTable }))
    expect(benches.getByRole('row', { name: /^450/ })).toHaveTextContent('3.78 J/token')
    expect(await faults()).toEqual([])
    await user.selectOptions(benches.getByLabelText(m.powerPage.which), '1')
    expect(benches.getByText(/at 512\.0 tokens\/s/)).toBeVisible()
    expect(benches.getByText('idlewatt bench --cap-sweep')).toBeVisible()
  })

  test('whose errors are greater than its differences recommends nothing', async () => {
    await open((now) => {
      const world = live(now)
      for (const point of world.power.benches[0]?.points ?? []) point.decode.error_uj = 9_000_000
      return world
    })
    expect(screen.getByText(m.powerPage.noBest)).toBeVisible()
    expect(screen.queryByRole('button', { name: /^Cap at/ })).toBeNull()
  })

  test('before any, has the command that makes one', async () => {
    await open(mixed)
    const benches = within(screen.getByRole('region', { name: m.powerPage.sweep }))
    expect(benches.getByRole('button', { name: /Copy.*idlewatt bench --cap-sweep/ })).toBeVisible()
  })
})

test('a limit stands with its present reading, is changed here, and a refusal stands at it', async () => {
  const { backend, user } = await open()
  const heat = screen.getByLabelText(m.powerPage.limit['thermal.limit'] ?? '')
  expect(screen.getByText(m.powerPage.nowAt('66 °C'))).toBeVisible()
  await user.clear(heat)
  await user.type(heat, '72{Enter}')
  await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'thermal.limit', value: '72' }]))
})

test('each sensor says what it covers, how often it changes, and what it leaves out', async () => {
  await open()
  const sensors = within(screen.getByRole('region', { name: m.powerPage.sensors }))
  expect(sensors.getByText(/Leaves out memory, board, and all cards\./)).toBeVisible()
  expect(sensors.getByText(m.powerPage.scope.wall)).toBeVisible()
  expect(sensors.getByText(/changes every 100.ms/)).toBeVisible()
})

test('a drag takes the line along and sets it when let go', async () => {
  const { backend } = await open()
  const area = slider().parentElement as HTMLElement
  // 636 W over 212 px: 3 W a pixel, zero at the bottom.
  area.getBoundingClientRect = () => new DOMRect(0, 0, 500, 212)
  slider().setPointerCapture = () => undefined
  const y = (watts: number): number => 212 - watts / 3
  await fireEvent.pointerDown(slider(), { button: 0, clientY: y(280) + 6, pointerId: 1 })
  await fireEvent.pointerMove(slider(), { clientY: y(201) + 6, pointerId: 1 })
  expect(slider()).toHaveAttribute('aria-valuenow', '200')
  await fireEvent.pointerMove(slider(), { clientY: y(40) + 6, pointerId: 1 })
  expect(slider()).toHaveAttribute('aria-valuenow', '150')
  await fireEvent.pointerMove(slider(), { clientY: y(453) + 6, pointerId: 1 })
  expect(slider()).toHaveAttribute('aria-valuenow', '450')
  expect(sent(backend)).toEqual([])
  await fireEvent.pointerUp(slider(), { clientY: y(453) + 6, pointerId: 1 })
  await waitFor(() => expect(sent(backend)).toEqual([{ type: 'set_config', key: 'power.cap', value: '450' }]))
})
