// Recorded power pages, for fixture.ts alone.

import type { BenchPoint, BenchReport, Gpu, GpuPower, Milliwatts, ModelEnergy, Power, Sensor, Today } from '../generated/control'

const DAY = 86_400_000

/** One point of a sweep on a 4090-like card: less power slows writing down late, and saves until clocks are too low. */
const point = (cap: number, uj: number, tokens: number): BenchPoint => ({
  cap_mw: cap * 1000,
  repeats: 5,
  prefill: { milli_tokens_per_s: tokens * 21_000, uj_per_token: Math.round(uj * 0.061e6), error_uj: Math.round(uj * 0.003e6) },
  decode: { milli_tokens_per_s: tokens * 1000, uj_per_token: Math.round(uj * 1e6), error_uj: Math.round((uj * 0.018 + 0.02) * 1e6) },
  mean_mw: cap * 968,
  peak_mw: cap * 1012,
  temperature_c: 48 + Math.round(cap / 20),
  label: 'measured',
})

function benches(now: number, gpu: Gpu): BenchReport[] {
  const artefact = { model: 'qwen3-30b', quantisation: 'q4_k_m', engine: 'llama.cpp', engine_build: 'b7043' }
  const base = { workload: 'idlewatt-1', version: '0.1.0', gpus: [gpu.name], server: 'llama.cpp b7043', method: 'the board’s energy counter' }
  return [
    {
      ...base, started: now - 2 * DAY, artefact,
      points: [point(150, 3.62, 41), point(180, 3.05, 58), point(210, 2.74, 73.5), point(240, 2.61, 86.5), point(280, 2.66, 97), point(320, 2.9, 103), point(360, 3.2, 106), point(450, 3.78, 108.5)],
    },
    { ...base, started: now - 5 * DAY, artefact: { ...artefact, model: 'smollm2-135m-instruct', quantisation: 'q4_1' }, points: [point(280, 0.31, 512)] },
  ]
}

const sensors: Sensor[] = [
  { id: 'nvml:GPU-1', name: 'NVIDIA GeForce RTX 4090', scope: 'board', method: 'the driver’s energy counter, checked against its instantaneous power', refresh_ms: 100, power_mw: 264_000 },
  { id: 'rapl:0', name: 'AMD Ryzen 9 7950X', scope: 'package', method: 'the processor’s own energy counter', refresh_ms: 1, leaves_out: 'memory, board, and all cards.', power_mw: 41_000 },
  { id: 'plug', name: 'Shelly Plug S, study', scope: 'wall', method: 'a smart plug, asked over the local network', refresh_ms: 1000, power_mw: 402_000 },
]

const models: ModelEnergy[] = [
  {
    model: 'qwen3-30b:q4_k_m', gpu: 'GPU-1', requests: 8_412, tokens_in: 1_204_000, tokens_out: 1_630_000, energy_mj: 4_610_000_000, uj_per_token: 2_828_000, error_uj: 51_000,
    label: 'measured', earned_ucr: 20_375_000_000, cost: { micros: 396_900, currency: 'EUR' },
  },
  {
    model: 'smollm2-135m-instruct:q4_1', gpu: 'GPU-1', requests: 911, tokens_in: 96_000, tokens_out: 212_000, energy_mj: 67_800_000, uj_per_token: 319_800, error_uj: 22_000,
    label: 'measured', earned_ucr: 84_800_000, cost: { micros: 5_838, currency: 'EUR' },
  },
  { model: 'nomic-embed-text:f16', requests: 64, tokens_in: 41_000, tokens_out: 0, label: 'unknown', earned_ucr: 2_100_000 },
]

function card(gpu: Gpu, more: Partial<GpuPower> = {}): GpuPower {
  const cap = gpu.cap_mw ?? 360_000
  return {
    gpu, asleep: false, hot_spot_c: 78, fan_percent: 54, user_cap_mw: cap, min_cap_mw: 150_000, max_cap_mw: 600_000, default_cap_mw: 450_000,
    binding: { kind: 'user_cap', cap_mw: cap, text: `Your cap of ${cap / 1000} W.` },
    actuator: 'hardware', actuator_text: 'The driver was told, through the helper; it holds within a tenth of a second.',
    idle_mw: 21_400, loaded_mw: 57_900, ...more,
  }
}

/** One card at work. */
export const one = (now: number, gpu: Gpu, today: Today, month: Today): Power => ({
  sentence: 'Your GPU draws 264 W, under your cap of 280 W.',
  gpus: [card(gpu)],
  machine: { gpus_mw: gpu.power_mw ?? 0, wall_mw: 402_000, daily_limit_mj: 4 * 3_600_000_000 },
  sensors, today, month, models, benches: benches(now, gpu),
})

/** A card that is held by its heat, one that sleeps, and one that tells nothing. */
export const three = (gpu: Gpu, today: Today, month: Today): Power => {
  const plain = (id: string, name: string, more: Partial<Gpu> = {}): Gpu => ({ id, name, label: 'unknown', ...more })
  const cap: Milliwatts = 190_000
  return {
    sentence: 'Your GPUs draw 187 W of the 500 W that you allow; heat holds the first below its cap.',
    gpus: [
      card({ ...gpu, power_mw: 187_000, cap_mw: cap, temperature_c: 77 }, {
        user_cap_mw: 280_000,
        binding: { kind: 'temperature', cap_mw: cap, text: 'Temperature: at 77 °C, 1 °C below its limit, it may draw 190 W.' },
        actuator: 'admission',
        actuator_text: 'Requests are spaced out, because setting the card’s own limit needs rights that Idlewatt does not have. Install the helper to let the card hold it: `idlewatt helper install`',
      }),
      card(plain('0000:2d:00.0', 'AMD Radeon RX 7900 XTX', { cap_mw: 284_000, vram_total: 24 * 2 ** 30 }), {
        asleep: true, user_cap_mw: 284_000, min_cap_mw: 1_000, max_cap_mw: 402_000, default_cap_mw: 355_000, actuator: 'duty_cycle', actuator_text: 'The model server is stopped and continued ten times a second.',
        hot_spot_c: undefined as never, fan_percent: undefined as never, idle_mw: undefined as never, loaded_mw: undefined as never,
      }),
      { gpu: plain('intel-0', 'Intel Arc A310'), asleep: false, min_cap_mw: 1_000, actuator: 'nobody', actuator_text: 'Nothing measures this card.' },
    ],
    machine: { gpus_mw: 187_000, cap_mw: 500_000 },
    sensors: sensors.slice(0, 1), today, month, models: models.slice(0, 1), benches: [], profitable: false,
  }
}

/** A machine on which nothing is measured. */
export const nothing = (today: Today): Power => ({
  sentence: 'No graphics card was found, so watts stay unknown.',
  gpus: [], machine: {}, sensors: [], today, month: today, models: [], benches: [],
})
