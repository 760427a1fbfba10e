// Recorded schedules, yields, hours and model files, for fixture.ts alone.

import type { ConfigEntry, DayHours, ModelFile, Outlook, PauseCode, Program, Stretch, Yield } from '../generated/control'
import { fromText, SLOTS } from '../week'

const HALF_HOUR = 1_800_000
const HOUR = 2 * HALF_HOUR

const entry = (key: string, value: string, standard: string, about: string, local_only = false): ConfigEntry => ({ key, value, default: standard, about, local_only })

export const config: ConfigEntry[] = [
  entry('share.exceptions', '2026-12-24 18:00 - 2026-12-26 12:00 closed; 2026-12-31 20:00 - 23:00 open', '', 'One-off exceptions from the share windows.'),
  entry('share.games', 'false', 'false', 'Share while a game runs.'),
  entry('share.full_screen', 'false', 'false', 'Share while something fills the screen.'),
  entry('share.calls', 'false', 'false', 'Share while the microphone is in use.'),
  entry('share.apps', 'blender, OBS Studio=cap', '', 'Programs not to be disturbed, such as `blender, OBS Studio=cap`.'),
  entry('share.gpu_load', '25', '25', 'Up to this busy by other programs a card counts as idle, in percent.'),
  entry('share.battery', 'never', 'never', 'Whether to share on battery: `never`, or from a charge such as `50 %`.'),
  entry('share.metered', 'false', 'false', 'Share on a connection that is paid by volume.'),
  entry('share.own_devices', 'true', 'true', 'Whether requests of your own devices pass reasons that give way.'),
  entry('share.strangers', 'false', 'false', 'Whether you agree that models may be offered to strangers.'),
  entry('yield.hotkey', 'Ctrl+Alt+G', '', 'A key that gives everything back at once.'),
  entry('hub.lan', 'false', 'false', 'Whether a hub of your own is open to the networks that this machine is in.'),
  entry('share.keep_awake', 'false', 'false', 'Keep this machine awake while it shares.'),
  entry('energy.max_price', '0.25 EUR', '', 'Pause while a kilowatt-hour costs more.'),
]

/** Two days of these windows, if nobody is here. */
export function outlook(now: number, windows: string): Outlook {
  const week = fromText(windows) ?? []
  const stretches: Stretch[] = []
  const first = now - (now % HALF_HOUR)
  for (let at = first; at < now + 48 * HOUR; at += HALF_HOUR) {
    const date = new Date(at)
    const day = (date.getDay() + 6) % 7
    const open = week[day]?.[Math.floor((date.getHours() * 60 + date.getMinutes()) / (1440 / SLOTS))] === true
    const last = stretches.at(-1)
    const from = Math.max(at, now)
    if (last !== undefined && (last.state === 'sharing') === open) continue
    if (last !== undefined) last.until = from
    stretches.push(
      open
        ? { from, state: 'sharing', sentence: 'Shares.', reasons: [] }
        : { from, state: 'paused', sentence: 'Paused: outside your hours.', reasons: [{ code: 'outside_window', text: 'Outside your hours.', since: from }] },
    )
  }
  return { stretches }
}

export const programs: Program[] = [
  { name: 'firefox', likely: true },
  { name: 'blender', likely: true },
  { name: 'darktable', likely: true },
  { name: 'systemd', likely: false },
  { name: 'pipewire', likely: false },
]

export function yields(now: number): Yield[] {
  const one = (ago: number, cause: PauseCode, sentence: string, more: Partial<Yield> = {}): Yield =>
    ({ cause, sentence, seen: now - ago, requests: 1, closed_ms: 21, verified: true, steps: [], ...more })
  return [
    one(0.34 * HOUR, 'game', 'GPU back in 0.31 s: a game started.', {
      requests: 2, freed_ms: 310,
      steps: [{ at_ms: 2, text: 'Shared requests ended' }, { at_ms: 21, text: 'Every connection to llama.cpp closed' }, { at_ms: 64, text: 'llama.cpp ended' }, { at_ms: 310, text: 'VRAM fell from 18.2 to 0.4 GiB' }],
    }),
    one(9 * HOUR, 'own_use', 'GPU back in 0.02 s: you used the model yourself.'),
    one(14 * HOUR, 'full_screen', 'GPU back in 1.42 s: something fills the screen.', {
      freed_ms: 1_420, verified: false, steps: [{ at_ms: 30, text: 'Ollama says the model is unloaded, but 6.2 GB are still held' }],
    }),
    one(30 * HOUR, 'person_here', 'GPU back in 0.03 s: you came back.'),
    one(41 * HOUR, 'person_here', 'GPU back in 0.02 s: you came back.'),
  ]
}

export function hours(now: number): DayHours[] {
  const day = (ago: number): string => {
    const date = new Date(now - ago * 24 * HOUR)
    return [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, '0')).join('-')
  }
  const one = (ago: number, shared: number, slept: number, off: number, paused: DayHours['paused']): DayHours => ({
    day: day(ago), window_ms: 9 * HOUR, shared_ms: shared * HOUR, offline_ms: Math.max(0, 9 - shared - slept - off) * HOUR - paused.reduce((sum, one) => sum + one.ms, 0), slept_ms: slept * HOUR, off_ms: off * HOUR, paused, keep_awake_would_help: false,
  })
  return [
    { ...one(0, 2.2, 5 + 2 / 3, 0, [{ code: 'person_here', ms: 0.9 * HOUR }]), sentence: 'Your PC slept 5 h 40 of your 9 h window.', keep_awake_would_help: true },
    one(1, 7.5, 0, 0, [{ code: 'game', ms: 1.1 * HOUR }, { code: 'person_here', ms: 0.3 * HOUR }]),
    one(2, 8.8, 0, 0, []),
    { ...one(3, 0, 0, 9, []), sentence: 'Your PC was off for all of your 9 h window.' },
    one(4, 4, 1.5, 0, [{ code: 'price', ms: 2 * HOUR }]),
  ]
}

export const modelFiles: ModelFile[] = [
  {
    id: 'm1', model: 'qwen3-30b-a3b:q4_k_m', path: '/home/ada/.cache/lm-studio/models/qwen/qwen3-30b-a3b-q4_k_m.gguf', source: 'LM Studio', size: 18.6e9, context: 40_960,
    plan: 'all 48 layers on the GPU, 2 × 8,192 tokens, 19.8 GB of VRAM', fits: true, chosen: true,
  },
  {
    id: 'm2', model: 'llama-3.3-70b-instruct:q4_k_m', path: '/home/ada/.cache/huggingface/hub/models--llama/llama-3.3-70b-instruct-q4_k_m-00001-of-00002.gguf', source: 'Hugging Face cache', size: 42.5e9, context: 131_072,
    plan: '21 of 80 layers on the GPU, 1 × 4,096 tokens, 19.2 GB of VRAM: slow', fits: true, chosen: false,
  },
  {
    id: 'm3', model: 'deepseek-v3:q4_k_m', path: '/data/models/deepseek-v3-q4_k_m-00001-of-00009.gguf', source: 'your folder', size: 404e9, context: 163_840,
    plan: 'needs 404 GB, and this machine has 24 GB of VRAM and 64 GB of memory', fits: false, chosen: false,
  },
]
