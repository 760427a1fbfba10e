import { cleanup, render, screen, waitFor, within } from '@testing-library/svelte'
import userEvent from '@testing-library/user-event'
import axe from 'axe-core'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'

import App from '../src/App.svelte'
import { away, fresh, FixtureBackend, live, type World } from '../src/lib/backend/fixture'
import { m } from '../src/lib/messages'

const NOW = new Date(2026, 10, 21, 11, 30).getTime()

beforeEach(() => {
  vi.setSystemTime(NOW)
  location.hash = ''
})
afterEach(() => {
  cleanup()
  vi.useRealTimers()
})

async function open(hash: string, world: (now: number) => World = away): Promise<{ backend: FixtureBackend; user: ReturnType<typeof userEvent.setup> }> {
  location.hash = hash
  dispatchEvent(new HashChangeEvent('hashchange'))
  const backend = new FixtureBackend(world, NOW)
  const user = userEvent.setup()
  render(App, { backend })
  await screen.findByRole('heading', { level: 1 })
  return { backend, user }
}

async function faults(): Promise<string[]> {
  // Colours are judged in a real browser (e2e); jsdom draws none.
  const { violations } = await axe.run(document, { rules: { 'color-contrast': { enabled: false } } })
  return violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(' ')}`)
}

describe('every page, full and empty, has no fault that axe can see', () => {
  const pages = ['#/overview', '#/models', '#/networks', '#/requests', '#/settings']
  test.each(pages.flatMap((page) => [[page, away] as const, [page, fresh] as const, [page, live] as const]))('%s %o', async (page, world) => {
    await open(page, world)
    if (page === '#/settings') await screen.findByText('share.idle_after')
    expect(await faults()).toEqual([])
  })
})

describe('overview', () => {
  test('leads with the sentence, and tells it to a screen reader', async () => {
    const { backend } = await open('#/overview')
    expect(screen.getByRole('heading', { level: 1 })).toHaveTextContent('Paused: you are here.')
    expect(document.querySelector('[aria-live]')).toHaveTextContent('Paused: you are here.')
    backend.say({ type: 'status', value: { ...live(NOW).status, sentence: 'Sharing again.' } })
    await waitFor(() => expect(document.querySelector('[aria-live]')).toHaveTextContent('Sharing again.'))
    backend.say({ type: 'status', value: { ...live(NOW).status, sentence: 'Sharing, 1 W more.' } })
    await waitFor(() => expect(screen.getByRole('heading', { level: 1 })).toHaveTextContent('Sharing, 1 W more.'))
    expect(document.querySelector('[aria-live]')).toHaveTextContent('Sharing again.')
  })

  test('on an attended machine what happened meanwhile comes first', async () => {
    await open('#/overview')
    await waitFor(() => expect(screen.getByRole('button', { name: m.overview.away })).toHaveAttribute('aria-pressed', 'true'))
    expect(screen.getByText(/GPU back in 310.ms, checked/)).toBeVisible()
  })

  test('on a headless machine the live view comes first', async () => {
    await open('#/overview', live)
    expect(await screen.findByText(/RTX 4090 · limit 280.W/)).toBeVisible()
  })

  test('gross, cost and net are three numbers, and an unset value is said', async () => {
    await open('#/overview')
    expect(await screen.findByText(m.overview.noNet)).toHaveAttribute('href', '#/settings/earnings.credit_value')
    expect(screen.getByText(m.overview.gross)).toBeVisible()
    expect(screen.getByText('€0.19')).toBeVisible()
  })

  test('what nothing measures is unknown, never zero', async () => {
    await open('#/overview', fresh)
    expect(screen.getByText(m.overview.energyUnknown)).toBeVisible()
    expect(screen.getByText(m.label.unknown)).toBeVisible()
  })

  test('a pause is two keys away, and resume follows it', async () => {
    const { backend, user } = await open('#/overview', live)
    screen.getByRole('button', { name: m.overview.pause }).focus()
    await user.keyboard('{Enter}{ArrowDown}{Enter}')
    expect(backend.asked).toContainEqual({ type: 'pause', until: 'seconds', seconds: 3600 })
    await user.click(await screen.findByRole('button', { name: m.overview.resume }))
    expect(await screen.findByRole('button', { name: m.overview.pause })).toBeVisible()
    expect(backend.asked).toContainEqual({ type: 'resume' })
  })

  test('the GPU is taken back with one button, only while it is lent', async () => {
    const { backend, user } = await open('#/overview', live)
    await user.click(screen.getByRole('button', { name: m.overview.back }))
    expect(backend.asked).toContainEqual({ type: 'give_back' })
    expect(await screen.findByRole('button', { name: m.overview.resume })).toBeVisible()
    expect(screen.queryByRole('button', { name: m.overview.back })).toBeNull()
  })

  test('sharing now is offered where only a person or the clock stands in the way', async () => {
    const { backend, user } = await open('#/overview')
    await user.click(screen.getByRole('button', { name: m.overview.shareNow }))
    expect(backend.asked).toContainEqual({ type: 'share_now', seconds: 3600 })
    cleanup()
    await open('#/overview', fresh)
    expect(screen.queryByRole('button', { name: m.overview.shareNow })).toBeNull()
  })

  test('each reason says since when, and until when where that is known', async () => {
    const since = NOW - 25 * 60_000
    const { backend } = await open('#/overview')
    const here = (text: string, until?: number) => ({ code: 'person_here' as const, text, since, ...(until === undefined ? {} : { until }) })
    const { status } = away(NOW)
    // Two reasons may share a code: at the machine, and over the network.
    backend.say({ type: 'status', value: { ...status, reasons: [here('You are here.', NOW + 600_000), here('Ada is logged in.')] } })
    const reasons = within(await screen.findByRole('list', { name: m.overview.reasons }))
    expect(reasons.getByText('You are here.')).toHaveTextContent('since 11:05, until 11:40')
    expect(reasons.getByText('Ada is logged in.')).toHaveTextContent(/since 11:05$/)
  })

  test('how the GPU was given back is told with its steps, the latest first, the rest on request', async () => {
    const { user } = await open('#/overview')
    const yields = within(await screen.findByRole('region', { name: m.overview.yields }))
    const first = yields.getAllByRole('listitem')[0] as HTMLElement
    expect(first).toHaveTextContent('GPU back in 0.31 s: a game started. · ended 2 requests · checked')
    await user.click(within(first).getByText(m.overview.yieldSteps))
    expect(within(first).getByText('VRAM fell from 18.2 to 0.4 GiB')).toBeVisible()
    expect(yields.getByText(/not checked/)).toBeVisible()
    expect(yields.queryByText(/0.03 s/)).toBeNull()
    await user.click(yields.getByRole('button', { name: m.overview.more(2) }))
    expect(yields.getByText(/0.03 s/)).toBeVisible()
  })

  test('why little was shared is told, and what would help is one button', async () => {
    const { backend, user } = await open('#/overview')
    const hours = within(await screen.findByRole('region', { name: m.overview.hours }))
    expect(hours.getByText('Your PC slept 5 h 40 of your 9 h window.')).toBeVisible()
    expect(hours.getByText(/a game ran, 1.h 6.min/)).toBeVisible()
    await user.click(hours.getByRole('button', { name: m.overview.keepAwake }))
    expect(backend.asked).toContainEqual({ type: 'set_config', key: 'share.keep_awake', value: 'true' })
    expect(await hours.findByText(m.overview.keepAwakeOn)).toBeVisible()
    expect(hours.queryByRole('button', { name: m.overview.keepAwake })).toBeNull()
  })

  test('escape closes the choices and gives the focus back', async () => {
    const { user } = await open('#/overview', live)
    const button = screen.getByRole('button', { name: m.overview.pause })
    await user.click(button)
    await user.keyboard('{ArrowDown}{Escape}')
    expect(button).toHaveFocus()
    expect(screen.queryByText(m.overview.pauseHour)).toBeNull()
  })

  test('the curve is also a table', async () => {
    const { user } = await open('#/overview', live)
    await user.click(await screen.findByRole('button', { name: m.asTable }))
    const table = within(screen.getByRole('region', { name: m.power.title }))
    expect(table.getAllByRole('row').length).toBe(61)
    expect(await faults()).toEqual([])
  })
})

describe('models', () => {
  test('a failed trial says what, why and what to do', async () => {
    const { user } = await open('#/models')
    const toggle = screen.getByRole('switch', { name: m.models.share('nomic-embed-text') })
    await user.click(toggle)
    await waitFor(() => expect(toggle).toHaveAttribute('aria-checked', 'false'))
    await user.click(toggle)
    expect(await screen.findByRole('alert')).toHaveTextContent(/did not answer.*refused.*ollama serve/s)
    expect(toggle).toHaveAttribute('aria-checked', 'false')
  })

  test('a price is checked before it is sent', async () => {
    const { backend, user } = await open('#/models')
    const [price] = screen.getAllByLabelText(m.models.price)
    await user.clear(price as HTMLElement)
    await user.type(price as HTMLElement, 'much')
    expect(screen.getByText(m.models.priceBad)).toBeVisible()
    expect(screen.getByRole('button', { name: m.save })).toBeDisabled()
    await user.clear(price as HTMLElement)
    await user.type(price as HTMLElement, '3,5{Enter}')
    expect(backend.asked).toContainEqual({ type: 'share', service: 's1', on: true, price: 3_500_000 })
    await waitFor(() => expect(price).toHaveValue('3.5'))
  })
})

describe('model files', () => {
  test('each says how it would be loaded; what does not fit cannot be run', async () => {
    const { backend, user } = await open('#/models')
    const files = within(await screen.findByRole('region', { name: m.models.files }))
    expect(files.getByText(/^Does not fit: needs 404.GB/)).toBeVisible()
    expect(files.queryByRole('button', { name: m.models.runFile('deepseek-v3:q4_k_m') })).toBeNull()
    await user.click(files.getByRole('button', { name: m.models.stopFile('qwen3-30b-a3b:q4_k_m') }))
    expect(backend.asked).toContainEqual({ type: 'run_model' })
    await user.click(await files.findByRole('button', { name: m.models.runFile('qwen3-30b-a3b:q4_k_m') }))
    expect(backend.asked).toContainEqual({ type: 'run_model', id: 'm1' })
    expect(await files.findByRole('button', { name: m.models.stopFile('qwen3-30b-a3b:q4_k_m') })).toBeVisible()
  })

  test('a model that the host loaded is unloaded only where the host says so', async () => {
    const { backend, user } = await open('#/models')
    const may = screen.getByRole('switch', { name: `${m.models.mayUnload}: qwen3-30b:q4_k_m` })
    expect(may).toHaveAttribute('aria-checked', 'false')
    await user.click(may)
    expect(backend.asked).toContainEqual({ type: 'may_unload', service: 's1', on: true })
    await waitFor(() => expect(may).toHaveAttribute('aria-checked', 'true'))
  })

  test('strangers may ask a model only once its host has read what that means', async () => {
    const { backend, user } = await open('#/models')
    const card = within(screen.getByRole('region', { name: 'qwen3-30b:q4_k_m' }))
    expect(card.getByLabelText(m.models.whoChoice.circle)).toBeChecked()
    await user.click(card.getByLabelText(m.models.whoChoice.public))
    await user.click(card.getByRole('button', { name: m.cancel }))
    expect(card.getByLabelText(m.models.whoChoice.circle)).toBeChecked()
    expect(backend.asked.some(({ type }) => type === 'share_with')).toBe(false)
    await user.click(card.getByLabelText(m.models.whoChoice.public))
    await user.click(card.getByRole('button', { name: m.models.strangersYes }))
    await waitFor(() => expect(card.getByLabelText(m.models.whoChoice.public)).toBeChecked())
    expect(backend.asked.filter(({ type }) => type === 'set_config' || type === 'share_with')).toEqual([
      { type: 'set_config', key: 'share.strangers', value: 'true' },
      { type: 'share_with', service: 's1', scope: 'public' },
    ])
    await user.click(card.getByLabelText(m.models.whoChoice.own))
    await waitFor(() => expect(card.getByLabelText(m.models.whoChoice.own)).toBeChecked())
  })

  test('where a server does not load by itself, what unloading means for other programs is said', async () => {
    await open('#/models')
    const says = (model: string, text: string): unknown => expect(screen.getByRole('region', { name: model })).toHaveTextContent(text)
    says('qwen3-30b:q4_k_m', 'loads it again for whoever asks next')
    says('smollm2-135m-instruct:q4_1', 'your own programs get an error')
  })
})

test('a server’s key is sent once and shown nowhere', async () => {
  const { backend, user } = await open('#/models')
  const part = within(screen.getByRole('region', { name: m.models.keyTitle }))
  await user.type(part.getByLabelText(m.models.keyServer), '127.0.0.1:8000')
  expect(part.getByRole('button', { name: m.models.keyKeep })).toBeDisabled()
  await user.type(part.getByLabelText(m.models.key), 'sk-secret{Enter}')
  expect(backend.asked).toContainEqual({ type: 'set_server_key', server: '127.0.0.1:8000', key: 'sk-secret' })
  expect(await part.findByText(m.models.keyKept)).toBeVisible()
  expect(part.getByLabelText(m.models.key)).toHaveValue('')
  await user.click(part.getByRole('button', { name: m.models.keyForget }))
  expect(backend.asked).toContainEqual({ type: 'set_server_key', server: '127.0.0.1:8000' })
})

describe('networks', () => {
  const invite = 'idlewatt://join?hub=https%3A%2F%2Fgarage.example%2F&key=KEY&token=TOKEN'

  test('an invite shows where it leads before anything is sent', async () => {
    const { backend, user } = await open('#/networks', fresh)
    await user.click(screen.getByLabelText(m.networks.joinAbout))
    await user.paste(invite)
    await user.click(screen.getByRole('button', { name: m.networks.look }))
    expect(screen.getByText('garage.example')).toBeVisible()
    expect(backend.asked.some((request) => request.type === 'join')).toBe(false)
    expect(await faults()).toEqual([])
    await user.click(screen.getByRole('button', { name: m.networks.confirm }))
    expect(backend.asked.at(-1)).toEqual({ type: 'join', invite })
    expect(await screen.findByRole('alert')).toHaveTextContent(/24 hours/)
  })

  test('a hub of the own is one button, and then an address with a key', async () => {
    const { backend, user } = await open('#/networks', fresh)
    await user.click(await screen.findByRole('button', { name: m.networks.ownStart }))
    expect(backend.asked).toContainEqual({ type: 'own_hub', on: true })
    expect(await screen.findByText('http://127.0.0.1:4181/v1')).toBeVisible()
    expect(await faults()).toEqual([])
    await user.click(screen.getByRole('button', { name: m.networks.ownStop }))
    expect(await screen.findByRole('button', { name: m.networks.ownStart })).toBeVisible()
  })

  test('leaving asks first, and cancel leaves all as it is', async () => {
    const { backend, user } = await open('#/networks')
    const card = within(screen.getByRole('region', { name: 'garage' }))
    await user.click(card.getByRole('button', { name: m.networks.leave }))
    await user.click(card.getByRole('button', { name: m.cancel }))
    expect(backend.asked.some((request) => request.type === 'leave')).toBe(false)
    await user.click(card.getByRole('button', { name: m.networks.leave }))
    await user.click(card.getByRole('button', { name: m.networks.leaveConfirm }))
    expect(backend.asked.at(-1)).toEqual({ type: 'leave', hub: 'n1' })
    await waitFor(() => expect(screen.queryByRole('region', { name: 'garage' })).toBeNull())
  })
})

describe('requests', () => {
  const bodyRows = (): HTMLElement[] => screen.getAllByRole('row').slice(1)

  test('sort by a heading, with the keyboard too', async () => {
    const { user } = await open('#/requests', live)
    screen.getByRole('button', { name: m.requests.column.duration }).focus()
    await user.keyboard('{Enter}')
    expect(screen.getByRole('columnheader', { name: m.requests.column.duration })).toHaveAttribute('aria-sort', 'descending')
    expect(bodyRows()[0]).toHaveTextContent('10.1')
    await user.keyboard('{Enter}')
    expect(bodyRows()[0]).toHaveTextContent('3.0')
  })

  test('filter by words and by how they ended', async () => {
    const { user } = await open('#/requests', live)
    await user.type(screen.getByLabelText(m.requests.filter), 'club QWEN')
    expect(bodyRows()).toHaveLength(2)
    await user.selectOptions(screen.getByLabelText(m.requests.outcome), 'failed')
    await user.click(screen.getByRole('button', { name: m.requests.clear }))
    expect(bodyRows()).toHaveLength(6)
  })

  test('a running request moves on by itself', async () => {
    const { backend } = await open('#/requests', live)
    const [row] = live(NOW).rows
    if (row) backend.say({ type: 'request', value: { ...row, outcome: 'complete', tokens_out: 1_960 } })
    await waitFor(() => expect(bodyRows()[0]).toHaveTextContent('2,000'))
    expect(bodyRows()).toHaveLength(6)
  })

  test('one request has its timeline, its watts, its receipt and the truth about it', async () => {
    const { user } = await open(`#/requests/${away(NOW).rows[0]?.id}`)
    expect(await screen.findByText(m.detail.kind.posted)).toBeVisible()
    expect(screen.getByRole('img', { name: /Power: 36.W – 27\d.W, limit 280.W/ })).toBeVisible()
    expect(screen.getByText('A receipt proves who said what; it does not prove which model ran.')).toBeVisible()
    await user.click(screen.getByRole('button', { name: m.detail.show }))
    expect(await screen.findByText('declared')).toBeVisible()
    expect(screen.getByRole('link', { name: m.detail.download })).toHaveAttribute('download', expect.stringMatching(/^req_.*\.receipt\.json$/))
    expect(await faults()).toEqual([])
  })

  test('what a request cost has a column, and its own line', async () => {
    await open('#/requests', live)
    expect(screen.getByRole('columnheader', { name: m.requests.column.cost })).toBeVisible()
    expect(screen.queryByRole('columnheader', { name: m.requests.column.net })).toBeNull()
    expect(bodyRows()[3]).toHaveTextContent('€0.00')
  })

  test('a request that is not there is said', async () => {
    location.hash = '#/requests/req_none'
    dispatchEvent(new HashChangeEvent('hashchange'))
    render(App, { backend: new FixtureBackend(away, NOW) })
    expect(await screen.findByText(m.detail.notFound.what)).toBeVisible()
  })
})

describe('settings', () => {
  test('a refused value keeps what was typed and says what is wrong', async () => {
    const { user } = await open('#/settings')
    const field = await screen.findByLabelText('share.idle_after')
    await user.clear(field)
    await user.type(field, 'soon{Enter}')
    expect(await screen.findByRole('alert')).toHaveTextContent('"soon" is no value for share.idle_after: not a length of time.')
    expect(field).toHaveValue('soon')
    expect(field).toHaveAccessibleDescription(/Write for example 10m/)
    await user.clear(field)
    await user.type(field, '5m{Enter}')
    expect(await screen.findByText(m.settings.saved)).toBeVisible()
    await user.click(within(field.closest('form') as HTMLElement).getByRole('button', { name: m.settings.reset }))
    await waitFor(() => expect(field).toHaveValue('10m'))
  })

  test('a switch sends true and false', async () => {
    const { backend, user } = await open('#/settings')
    await user.click(await screen.findByRole('switch', { name: 'share.while_active' }))
    expect(backend.asked.at(-1)).toEqual({ type: 'set_config', key: 'share.while_active', value: 'true' })
  })

  test('what only the command line may set is shown with its command, and cannot be edited', async () => {
    const { user } = await open('#/settings')
    await user.click(await screen.findByRole('button', { name: 'Model servers' }))
    expect(await screen.findByText('idlewatt config set servers.urls …')).toBeVisible()
    expect(screen.queryByRole('textbox', { name: 'servers.urls' })).toBeNull()
  })

  test('settings are found by what they are called, do, or hold', async () => {
    const { user } = await open('#/settings')
    await screen.findByText('share.idle_after')
    const search = screen.getByRole('searchbox', { name: m.settings.search })
    await user.type(search, 'KILOWATT costs')
    expect(screen.getByText('energy.max_price')).toBeVisible()
    expect(screen.queryByText('share.idle_after')).toBeNull()
    await user.type(search, ' nowhere')
    expect(screen.getByText(m.settings.searchNone)).toBeVisible()
    const sections = within(screen.getByRole('group', { name: m.settings.sections }))
    await user.click(sections.getByRole('button', { name: 'Heat' }))
    expect(search).toHaveValue('')
    expect(screen.getByText('thermal.limit')).toBeVisible()
    expect(screen.queryByText('energy.max_price')).toBeNull()
    await user.click(sections.getByRole('button', { name: m.settings.all }))
    expect(screen.getByText('energy.max_price')).toBeVisible()
    expect(await faults()).toEqual([])
  })

  test('a link to a setting puts the focus there', async () => {
    await open('#/settings/energy.price')
    await waitFor(() => expect(screen.getByLabelText('energy.price')).toHaveFocus())
  })

  test('the key is hidden until it is asked for', async () => {
    const { user } = await open('#/settings')
    const show = await screen.findByRole('button', { name: m.settings.reveal })
    expect(document.body.textContent).not.toContain('iw-local-')
    await user.click(show)
    expect(screen.getByText(/iw-local-/)).toBeVisible()
  })

  test('the look is chosen and kept', async () => {
    const { user } = await open('#/settings')
    await user.click(screen.getByLabelText(m.settings.themes.dark))
    expect(document.documentElement.dataset.theme).toBe('dark')
    await user.click(screen.getByLabelText(m.settings.themes.system))
    expect(document.documentElement.dataset.theme).toBeUndefined()
  })
})

test('a lost connection is said calmly and everything is asked again after it', async () => {
  const { backend } = await open('#/overview')
  backend.link('lost')
  expect(await screen.findByText(m.link.lost, { exact: false })).toBeVisible()
  const before = backend.asked.length
  backend.link('live')
  await waitFor(() => expect(screen.queryByText(m.link.lost, { exact: false })).toBeNull())
  expect(backend.asked.slice(before)).toContainEqual({ type: 'status' })
})

test('resync asks for everything again', async () => {
  const { backend } = await open('#/overview')
  const before = backend.asked.length
  backend.say({ type: 'resync' })
  await waitFor(() => expect(backend.asked.slice(before)).toContainEqual({ type: 'status' }))
})

test('a phone is let in with a code to scan, once the hub is opened to the networks', async () => {
  const { backend, user } = await open('#/networks')
  await user.click(await screen.findByRole('button', { name: m.networks.ownStart }))
  await user.click(await screen.findByRole('button', { name: m.networks.devicesOpen }))
  expect(backend.asked).toContainEqual({ type: 'set_config', key: 'hub.lan', value: 'true' })
  await user.click(await screen.findByRole('button', { name: m.networks.invite }))
  expect(await screen.findByRole('img', { name: m.networks.invitePicture })).toBeVisible()
  expect(screen.getByText(m.networks.inviteWarns)).toBeVisible()
  expect(await faults()).toEqual([])
})

test('the key that gives the GPU back stands beside its button', async () => {
  await open('#/overview', live)
  expect(await screen.findByText(m.overview.backKey('Ctrl+Alt+G'))).toBeVisible()
})
