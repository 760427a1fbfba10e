// Recorded answers for tests and for `npm run dev:fixture`. Nothing of the product imports this file, and the build
// fails when its mark turns up in the bundle.

import type {
  ConfigEntry,
  ControlError,
  DayHours,
  Doctor,
  Event,
  Gpu,
  ModelFile,
  Network,
  Power,
  Reason,
  Receipt,
  Request,
  RequestDetail,
  RequestRow,
  Response,
  Sample,
  Service,
  Session,
  Status,
  Today,
  Yield,
} from '../generated/control'
import * as power from './fixture-power'
import * as schedule from './fixture-schedule'
import { fromText } from '../week'
import type { Backend, Listener } from './index'

export const MARK = 'idlewatt-fixture-mark'

export interface World {
  status: Status
  session: Session | null
  rows: RequestRow[]
  samples: Sample[]
  config: ConfigEntry[]
  doctor: Doctor
  power: Power
  yields: Yield[]
  hours: DayHours[]
  files: ModelFile[]
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const CAP = 280_000
const KEY = 'V5nX0lq3cQh2k9yT7bW1zR8mJ4dF6sGpA-LuEoNiCxY'

const artefact = {
  model: 'qwen3-30b',
  quantisation: 'q4_k_m',
  digest: `sha256:${'4be1c07d'.repeat(8)}`,
  engine: 'llama.cpp',
  engine_build: 'b7043',
}

/** A reading, made as a card makes them: a floor, bursts of work, and a little noise that is always the same. */
function sample(at: number, i: number, working: boolean): Sample {
  const noise = ((i * 7919) % 13) * 400
  const power_mw = working ? 262_000 + noise * 2 : 36_000 + noise
  return { at, gpu: 'GPU-1', power_mw, cap_mw: CAP, temperature_c: working ? 66 : 44, running: working ? 1 : 0 }
}

function bursts(from: number, to: number, every: number, late: number[] = []): Sample[] {
  const many = Math.floor((to - from) / every)
  return Array.from({ length: many }, (_, i) => {
    const part = i / many
    const working = [0.08, 0.2, 0.55, 0.58, 0.75].some((start) => part > start && part < start + 0.05) || late.some((start) => part > start && part < start + 0.022)
    return sample(from + i * every, i, working)
  })
}

function row(now: number, i: number, more: Partial<RequestRow> = {}): RequestRow {
  const tokens_out = 60 + ((i * 137) % 900)
  const marginal_mj = tokens_out * 2_900
  const made: RequestRow = {
    id: `req_${(i + 1).toString(16).padStart(32, 'a1b2c3d4')}`,
    network: i % 3 === 1 ? 'club.example' : 'garage',
    model: 'qwen3-30b:q4_k_m',
    artefact,
    started: now - 11 * MINUTE - i * 7 * MINUTE,
    ttft_ms: 180 + ((i * 53) % 400),
    duration_ms: 400 + tokens_out * 13,
    tokens_in: 40 + ((i * 71) % 700),
    tokens_out,
    outcome: 'complete',
    own: i % 5 === 3,
    ...(i % 5 === 3 ? {} : { earned_ucr: tokens_out * 12_500 }),
    cost: { micros: Math.round(marginal_mj * 1.3 * 0.31 / 3_600), currency: 'EUR' },
    energy: { marginal_mj, total_mj: Math.round(marginal_mj * 1.3), error_mj: Math.round(marginal_mj * 0.018), label: 'measured' },
    segments: 1,
    receipt: `sha256:${'9af3'.repeat(16)}`,
    ...more,
  }
  // What is not known costs nobody knows what.
  if (made.energy.label === 'unknown') delete made.cost
  return made
}

const gpu: Gpu = {
  id: 'GPU-1',
  name: 'NVIDIA GeForce RTX 4090',
  power_mw: 38_400,
  cap_mw: CAP,
  vram_used: 18.2 * 2 ** 30,
  vram_total: 24 * 2 ** 30,
  temperature_c: 44,
  label: 'measured',
}

const all = { chat: true, completions: true, embeddings: false, streaming: true, cancels: true, usage: true, logprobs: true, tools: true, json_schema: true, continuation: 'ids' as const }
const nothing = { chat: false, completions: false, embeddings: false, streaming: false, cancels: false, usage: false, logprobs: false, tools: false, json_schema: false, continuation: 'none' as const }

const services: Service[] = [
  {
    id: 's1', scope: 'circle', model: 'qwen3-30b:q4_k_m', server: 'llama.cpp · 127.0.0.1:8080', shared: true, reachable: true, ready: true, warm: true, may_unload: false, loads_on_request: true,
    artefact, slots: 4, busy: 0, context: 32_768, price: 12_500_000, capabilities: all, milli_tokens_per_s: 78_400,
  },
  {
    id: 's2', scope: 'own', model: 'smollm2-135m-instruct:q4_1', server: 'llama.cpp · 127.0.0.1:9931', shared: false, reachable: true, ready: false, warm: true, may_unload: false, loads_on_request: false,
    artefact: { model: 'smollm2-135m-instruct', quantisation: 'q4_1', engine: 'llama.cpp', engine_build: 'b7043' },
    slots: 2, busy: 0, context: 4_096, price: 0, capabilities: nothing,
  },
  {
    id: 's3', scope: 'circle', model: 'nomic-embed-text', server: 'Ollama · 127.0.0.1:11434', shared: true, reachable: false, ready: false, warm: false, may_unload: true, loads_on_request: true,
    artefact: { model: 'nomic-embed-text', quantisation: 'f16', engine: 'ollama', engine_build: '0.15.2' },
    slots: 1, busy: 0, context: 2_048, price: 1_000_000, capabilities: { ...nothing, embeddings: true, usage: true },
    problem: 'Ollama at 127.0.0.1:11434 has not answered since 21:14. Start it again, or switch this model off here.',
  },
]

function networks(now: number): Network[] {
  return [
    { id: 'n1', kind: 'hub', name: 'garage', url: 'https://garage.example:4181', account: 'ada', state: 'connected', since: now - 9 * HOUR, last_request: now - 11 * MINUTE, requests_today: 31, earned_today_ucr: 212_400_000, unsettled: 0 },
    { id: 'n2', kind: 'hub', name: 'club.example', url: 'https://club.example', account: 'ada-at-home', state: 'connected', reason: 'nobody has asked for qwen3-30b here since Tue 19:40.', since: now - 2 * HOUR, last_request: now - 3 * 24 * HOUR, requests_today: 0, earned_today_ucr: 0, unsettled: 0 },
    { id: 'n3', kind: 'hub', name: 'lab', url: 'https://lab.example', account: 'ada', state: 'waiting', reason: 'the hub does not answer; next try in 40 s. Its owner may have switched it off.', since: now - 25 * MINUTE, requests_today: 2, earned_today_ucr: 9_100_000, unsettled: 2 },
  ]
}

function today(n: number): Today {
  return {
    requests: n,
    tokens_in: n * 96,
    tokens_out: n * 137,
    earned_ucr: n * 3_116_500,
    energy_mj: n * 5_330_000,
    energy_split: { answering: n * 700_000, waiting: n * 2_970_000, awake: n * 1_660_000 },
    energy_label: 'measured',
    cost: { micros: n * 459, currency: 'EUR' },
  }
}

const none: Today = { requests: 0, tokens_in: 0, tokens_out: 0, earned_ucr: 0, energy_split: { answering: 0, waiting: 0, awake: 0 }, energy_label: 'unknown' }

const config: ConfigEntry[] = [
  { key: 'share.idle_after', value: '10m', default: '10m', about: 'Share after no input for so long, 0s to 24h. 0s does not wait.', local_only: false },
  { key: 'share.resume_hysteresis', value: '2m', default: '2m', about: 'Wait so long after the last reason to pause ended, 0s to 1h.', local_only: false },
  { key: 'share.windows', value: 'Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00', default: 'always', about: 'When sharing is allowed, local time: always, or days with hours.', local_only: false },
  { key: 'share.while_active', value: 'false', default: 'false', about: 'Keep sharing while you use the machine.', local_only: false },
  ...schedule.config,
  { key: 'power.cap', value: '280', default: '', about: 'Watts that a card may draw for shared work: a number for all, or GPU-UUID=W for each.', local_only: false },
  { key: 'power.machine_cap', value: '', default: '', about: 'Most power that sharing may draw on all cards together, in watts. Empty sets no such limit.', local_only: false },
  { key: 'power.daily_energy', value: '4', default: '', about: 'Most energy that sharing may use in a day, in kWh from 0.01 to 1000, such as `2.5`. Empty sets no such limit.', local_only: false },
  { key: 'thermal.limit', value: '78', default: '78', about: 'Sharing pauses when a card is this hot, in °C, 40 to 110, and goes on when it has cooled by 5.', local_only: false },
  { key: 'thermal.hot_spot', value: '95', default: '95', about: 'The same for the hottest spot that a card tells of, in °C, 40 to 110.', local_only: false },
  { key: 'thermal.fan_limit', value: '', default: '', about: 'Fastest that a card’s fan may run for sharing in quiet hours, in percent, 20 to 100, such as `45`.', local_only: false },
  { key: 'thermal.quiet_hours', value: 'always', default: 'always', about: 'When the fan limit holds, in local time: `always`, or hours by day such as `Mon-Sun 22:00-07:00`.', local_only: false },
  { key: 'energy.price', value: '0.31 EUR/kWh', default: '', about: 'What a kilowatt-hour costs you.', local_only: false },
  { key: 'earnings.credit_value', value: '', default: '', about: 'What a credit is worth to you; unset says nothing about money.', local_only: false },
  { key: 'servers.scan', value: 'true', default: 'true', about: 'Look for model servers on the usual ports of this machine.', local_only: false },
  { key: 'servers.urls', value: 'http://127.0.0.1:9931', default: '', about: 'More model servers, separated by spaces.', local_only: true },
  { key: 'devices.nvml', value: '', default: '', about: 'Path of the NVML library, where it is not found by itself.', local_only: true },
]

const doctor: Doctor = {
  version: '0.1.0',
  checks: [
    { area: 'gpu', level: 'good', what: 'NVIDIA GeForce RTX 4090, driver 580.82; power from the board’s 1 s average.' },
    { area: 'presence', level: 'good', what: 'Input is seen through the X11 screen saver extension.' },
    { area: 'keys', level: 'note', what: 'No keyring here: keys are kept in files that only you can read.' },
    { area: 'servers', level: 'problem', what: 'Ollama at 127.0.0.1:11434 does not answer.', do: 'Start it with: ollama serve' },
  ],
}

/** The owner of a gaming PC has just sat down again. */
export function away(now: number): World {
  const started = now - 6 * HOUR
  const ended = now - 20 * MINUTE
  const here: Reason = { code: 'person_here', text: 'You are here.', since: ended }
  return {
    status: {
      version: '0.1.0', control: 1, state: 'paused',
      sentence: 'Paused: you are here. Sharing resumes 10 min after you stop.',
      since: ended, reasons: [here], presence: 'here', gpus: [gpu], services, networks: networks(now), today: today(33), running: 0,
      last_yield: { cause: 'person_here', seen: ended, closed_ms: 21, freed_ms: 310, verified: true }, attention: [],
    },
    session: { started, ended, ended_by: { ...here, text: 'You came back.' }, totals: today(412), peak_10s_mw: 276_000, cap_mw: CAP },
    rows: Array.from({ length: 100 }, (_, i) => row(ended, i)),
    samples: bursts(started, now, 40_000),
    config, doctor, power: power.one(now, gpu, today(33), today(9_387)),
    yields: schedule.yields(now), hours: schedule.hours(now), files: schedule.modelFiles,
  }
}

/** A headless machine at work. */
export function live(now: number): World {
  const world = away(now)
  const busy = { ...gpu, power_mw: 264_000, temperature_c: 66 }
  const running = row(now, 0, { id: `req_${'0f'.repeat(16)}`, started: now - 4_200, duration_ms: 4_200, tokens_out: 288, outcome: 'running', receipt: undefined as never, earned_ucr: undefined as never, energy: { label: 'unknown' } })
  delete running.receipt
  delete running.earned_ucr
  return {
    ...world,
    status: {
      ...world.status, state: 'sharing', sentence: 'Sharing: answering 1 request, 264 W.', since: now - 3 * HOUR,
      reasons: [], presence: 'headless', running: 1, gpus: [busy],
      today: { ...today(34), gross: { micros: 212_000, currency: 'EUR' }, net: { micros: 196_400, currency: 'EUR' } },
    },
    session: null,
    rows: [running, row(now, 1, { outcome: 'cancelled', receipt: undefined as never }), row(now, 2, { outcome: 'yielded' }), row(now, 3), row(now, 4, { energy: { marginal_mj: 41_000, label: 'estimated' } }), row(now, 5, { outcome: 'failed', tokens_out: 0, energy: { label: 'unknown' } })],
    samples: bursts(now - HOUR, now, 3_000, [0.85, 0.905, 0.98]),
    power: power.one(now, busy, today(34), today(9_387)),
  }
}

/** The first evening: nothing found, nothing joined, nothing measured. */
export function fresh(now: number): World {
  const world = away(now)
  return {
    ...world,
    status: {
      ...world.status, state: 'paused', sentence: 'Paused: no model is shared and no network is joined.', since: now - MINUTE,
      reasons: [
        { code: 'nothing_to_share', text: 'No model is shared.', since: now - MINUTE },
        { code: 'no_network', text: 'No network is joined.', since: now - MINUTE },
      ],
      presence: 'headless', gpus: [], services: [], networks: [], today: none, running: 0,
      attention: [{ what: 'No keyring was found.', why: 'Keys are kept in files that only you can read.', do: 'Nothing, unless you want them in a keyring: install one and restart.' }],
    },
    session: null, rows: [], samples: [], power: power.nothing(none), yields: [], hours: [], files: [],
  }
}

/** Three cards: one held by its heat, one asleep, one that tells nothing. */
export function mixed(now: number): World {
  const world = live(now)
  const power_page = power.three(gpu, today(34), today(9_387))
  const config = world.config.map((entry) => (entry.key === 'power.cap' ? { ...entry, value: 'GPU-1=280' } : entry))
  return {
    ...world, config, power: power_page,
    status: { ...world.status, gpus: power_page.gpus.map((card) => card.gpu) },
    samples: world.samples.map((sample) => (sample.power_mw && sample.power_mw > 100_000 ? { ...sample, power_mw: sample.power_mw - 78_000, cap_mw: 190_000 } : sample)),
  }
}

export const worlds = { away, live, fresh, mixed }

const receipt = (row: RequestRow): Receipt => ({
  id: row.id, hub: KEY, consumer: 'c_7f21b0', model: row.artefact.model, endpoint: 'chat_completions' as Receipt['endpoint'], outcome: 'complete',
  salt_digest: `sha256:${'01'.repeat(32)}`, request_commitment: `sha256:${'02'.repeat(32)}`, response_commitment: `sha256:${'03'.repeat(32)}`,
  segments: [{ node: KEY.split('').reverse().join(''), artefact: row.artefact, usage: { prompt: row.tokens_in, completion: row.tokens_out, source: 'server' }, earned: row.earned_ucr ?? 0, statement: { signed: { payloadType: 'application/vnd.idlewatt.statement.v1+json', payload: '', index: 0, path: [], leaves: 1, keyid: KEY, sig: '' } } }],
  joined: 'single', price: 12_500_000, cost: row.earned_ucr ?? 0, fee: 0, verification: 'declared', started: row.started, issued: row.started + row.duration_ms + 90,
})

const no = (code: ControlError['code'], what: string, why: string, action: string): Response => ({ type: 'error', value: { code, what, why, do: action } })

/** As the engine refuses. */
function refused(key: string, value: string): Response | undefined {
  const about = `"${value}" is no value for ${key}`
  if (key === 'share.idle_after' && !/^(\d+[smh])?$/.test(value)) return no('bad_value', `${about}: not a length of time.`, 'The setting is as it was.', 'Write for example 10m.')
  if (key === 'share.windows' && fromText(value) === undefined) return no('bad_value', `${about}: at character 1, that is no day of the week.`, 'The setting is as it was.', 'Write `always`, or `Mon-Fri 22:00-07:00`.')
  return undefined
}

export class FixtureBackend implements Backend {
  readonly mark = MARK
  /** Everything that was asked, oldest first. */
  readonly asked: Request[] = []
  readonly #now: number
  readonly #world: World
  #listener: Listener | undefined

  constructor(world: (now: number) => World, now: number) {
    this.#now = now
    this.#world = structuredClone(world(now))
  }

  events(listener: Listener): () => void {
    this.#listener = listener
    queueMicrotask(() => listener.link('live'))
    return () => (this.#listener = undefined)
  }

  say(event: Event): void {
    this.#listener?.event(event)
  }

  link(link: 'live' | 'lost' | 'denied'): void {
    this.#listener?.link(link)
  }

  #setting(key: string): string {
    return this.#world.config.find((one) => one.key === key)?.value ?? ''
  }

  /** What a new cap does to the cards. */
  #cap(text: string): void {
    for (const card of this.#world.power.gpus) {
      const own = text.includes('=') ? text.split(', ').find((part) => part.startsWith(`${card.gpu.id}=`))?.split('=')[1] : text
      const cap_mw = own ? Number(own) * 1000 : (card.default_cap_mw ?? 0) * 0.8
      Object.assign(card, { user_cap_mw: cap_mw, binding: { kind: 'user_cap', cap_mw, text: `Your cap of ${cap_mw / 1000} W.` } })
    }
  }

  async request(request: Request): Promise<Response> {
    this.asked.push(request)
    const { status, config } = this.#world
    switch (request.type) {
      case 'status':
        return { type: 'status', value: structuredClone(status) }
      case 'doctor':
        return { type: 'doctor', value: this.#world.doctor }
      case 'services':
      case 'rescan':
        return { type: 'services', value: structuredClone(status.services) }
      case 'share': {
        const service = status.services.find((one) => one.id === request.service)
        if (service === undefined) return no('not_found', 'There is no such model.', 'It went away.', 'Look again.')
        if (request.on && !service.reachable) return no('server_failed', 'Ollama did not answer the trial request.', 'It refused the connection at 127.0.0.1:11434.', 'Start it with ollama serve, then switch the model on again.')
        Object.assign(service, { shared: request.on, ready: request.on, ...(request.price === undefined ? {} : { price: request.price }) })
        return { type: 'services', value: structuredClone(status.services) }
      }
      case 'networks':
        return { type: 'networks', value: structuredClone(status.networks) }
      case 'join':
        return no('invite_expired', 'The hub did not take the invite.', 'Its time is over: an invite is good for 24 hours.', 'Ask the owner of the network for a new one.')
      case 'leave':
        status.networks = status.networks.filter((one) => one.id !== request.hub)
        return { type: 'networks', value: structuredClone(status.networks) }
      case 'pause':
        Object.assign(status, { state: 'paused', sentence: 'Paused: you asked for it.', reasons: [{ code: 'paused_by_host', text: 'You paused sharing.', since: this.#now }] })
        return { type: 'status', value: structuredClone(status) }
      case 'resume':
        Object.assign(status, { state: 'sharing', sentence: 'Sharing qwen3-30b on garage.', reasons: [] })
        return { type: 'status', value: structuredClone(status) }
      case 'share_now':
        Object.assign(status, { state: 'sharing', sentence: 'Sharing now, because you asked for it.', reasons: [] })
        return { type: 'status', value: structuredClone(status) }
      case 'give_back':
        Object.assign(status, { state: 'paused', sentence: 'Paused: you took the GPU back.', reasons: [{ code: 'paused_by_host', text: 'You took the GPU back.', since: this.#now }] })
        return { type: 'status', value: structuredClone(status) }
      case 'invite_to_own_hub':
        return { type: 'hub_invite', value: { invite: 'idlewatt://join?hub=https%3A%2F%2F192.168.1.7%3A4182&key=k&token=t', page: 'https://192.168.1.7:4182/join#key=k&token=t', picture: { size: 3, path: 'M0 0h1v1h-1zM2 2h1v1h-1z' } } }
      case 'may_unload':
        for (const one of status.services) if (one.id === request.service) one.may_unload = request.on
        return { type: 'services', value: structuredClone(status.services) }
      case 'share_with':
        for (const one of status.services) if (one.id === request.service) one.scope = request.scope
        return { type: 'services', value: structuredClone(status.services) }
      case 'yields':
        return { type: 'yields', value: this.#world.yields.slice(0, request.limit) }
      case 'hours':
        return { type: 'hours', value: this.#world.hours.slice(0, request.days) }
      case 'schedule':
        return { type: 'schedule', value: { week: (fromText(this.#setting('share.windows')) ?? []).map((day) => day.map((slot) => slot === true)), exact: true, rules: ['Shares Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00.', 'Waits until you have been away for 10 min.'], outlook: schedule.outlook(this.#now, this.#setting('share.windows')), zone: 'Europe/Berlin' } }
      case 'preview': {
        const wrong = Object.entries(request.settings).map(([key, value]) => refused(key, value ?? '')).find(Boolean)
        return wrong ?? { type: 'preview', value: schedule.outlook(this.#now, request.settings['share.windows'] ?? this.#setting('share.windows')) }
      }
      case 'programs':
        return { type: 'programs', value: schedule.programs }
      case 'model_files':
        return { type: 'model_files', value: structuredClone(this.#world.files) }
      case 'run_model':
        for (const file of this.#world.files) file.chosen = file.id === request.id
        return { type: 'model_files', value: structuredClone(this.#world.files) }
      case 'set_server_key':
        return { type: 'done' }
      case 'requests':
        return { type: 'requests', value: this.#world.rows.filter((row) => row.started < (request.before ?? Infinity)).slice(0, request.limit) }
      case 'request_detail': {
        const found = this.#world.rows.find((row) => row.id === request.id)
        return found === undefined ? no('not_found', 'No such request.', 'It is not kept here.', 'Go back.') : { type: 'request_detail', value: detail(found) }
      }
      case 'receipt': {
        const found = this.#world.rows.find((row) => row.id === request.id)
        if (found?.receipt === undefined) return no('not_found', 'There is no receipt yet.', 'The network has not settled it.', 'Wait a moment.')
        return { type: 'receipt', value: { receipt: { payloadType: 'application/vnd.idlewatt.receipt.v1+json', payload: btoa(JSON.stringify(receipt(found))), index: 0, path: [], leaves: 1, keyid: KEY, sig: 'A'.repeat(86) } } }
      }
      case 'samples':
        return { type: 'samples', value: this.#world.samples.filter((sample) => sample.at >= request.since) }
      case 'last_session':
        return { type: 'last_session', value: this.#world.session }
      case 'power':
        return { type: 'power', value: structuredClone(this.#world.power) }
      case 'days':
        return { type: 'days', value: {} }
      case 'config':
      case 'reload_config':
        return { type: 'config', value: structuredClone(config) }
      case 'set_config': {
        const entry = config.find((one) => one.key === request.key)
        if (entry === undefined) return no('not_found', 'There is no such setting.', 'It may be of another version.', 'Load this page again.')
        if (request.key === 'power.cap' && request.value.includes('599')) return no('home_read_only', 'The settings could not be written.', 'The file belongs to somebody else.', 'Give it back: chown idlewatt.toml')
        const wrong = refused(request.key, request.value)
        if (wrong !== undefined) return wrong
        entry.value = request.value === '' ? entry.default : request.value
        if (request.key === 'power.cap') this.#cap(entry.value)
        return { type: 'config', value: structuredClone(config) }
      }
      case 'own_endpoint':
        return { type: 'own_endpoint', value: { url: 'http://127.0.0.1:4180/v1', key: 'iw-local-3f9c2a7d81e04b6f' } }
      case 'own_hub':
        return { type: 'own_hub', value: request.on ? { url: 'http://127.0.0.1:4181/v1', key: 'iw-circle-of-one' } : null }
      case 'stop':
        return { type: 'done' }
      default:
        return no('bad_request', 'The panel does not ask this.', 'It is for the command line.', 'Nothing.')
    }
  }
}

function detail(row: RequestRow): RequestDetail {
  const end = row.started + row.duration_ms
  const samples = Array.from({ length: 40 }, (_, i) => sample(row.started + (row.duration_ms * i) / 39, i, i > 2))
  return {
    row,
    timeline: [
      { at: row.started, kind: 'received' },
      { at: row.started + 6, kind: 'started' },
      { at: row.started + (row.ttft_ms ?? 200), kind: 'first_token' },
      ...(row.outcome === 'running' ? [] : ([{ at: end, kind: 'ended' }, { at: end + 12, kind: 'signed' }, { at: end + 64, kind: 'posted' }] as const)),
    ],
    samples,
  }
}
