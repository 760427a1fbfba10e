// Settings of the Schedule page that are changed and not saved yet, with what the engine says of them.

import { ask, Refused } from './backend'
import { toError, type Engine } from './engine.svelte'
import type { ConfigEntry, ControlError, Outlook } from './generated/control'

/** After the last key or stroke, before the engine is asked what it would do. */
const SETTLE_MS = 250

export class Draft {
  readonly #engine: Engine
  entries: ConfigEntry[] = $state.raw([])
  /** What the engine would do with what is not saved yet; as it was, while something is not valid. */
  outlook: Outlook | undefined = $state.raw()
  /** By key: why its value is refused. */
  errors: Record<string, ControlError> = $state.raw({})
  /** Of what belongs to no key. */
  failure: ControlError | undefined = $state.raw()
  busy = $state(false)
  #asked = 0

  constructor(engine: Engine) {
    this.#engine = engine
  }

  get edits(): Record<string, string> {
    return this.#engine.edits
  }

  get count(): number {
    return Object.keys(this.edits).length
  }

  entry(key: string): ConfigEntry | undefined {
    return this.entries.find((entry) => entry.key === key)
  }

  value(key: string): string {
    return this.edits[key] ?? this.entry(key)?.value ?? ''
  }

  change(key: string, value: string): void {
    const { [key]: _, ...rest } = this.edits
    this.#engine.edits = value === this.entry(key)?.value ? rest : { ...rest, [key]: value }
    this.errors = without(this.errors, key)
  }

  undo(): void {
    this.#engine.edits = {}
    this.errors = {}
    this.failure = undefined
  }

  async load(): Promise<void> {
    try {
      this.entries = await ask(this.#engine.backend, { type: 'config' }, 'config')
      this.failure = undefined
    } catch (failed) {
      this.failure = toError(failed)
    }
  }

  /** Asks for what would happen, once nothing was changed for a moment; the returned function calls it off. */
  preview(edits: Record<string, string>): () => void {
    const turn = ++this.#asked
    const timer = setTimeout(() => {
      ask(this.#engine.backend, { type: 'preview', settings: edits }, 'preview').then(
        (outlook) => turn === this.#asked && this.#foreseen(outlook),
        (failed) => turn === this.#asked && this.#refused(failed, edits),
      )
    }, turn === 1 ? 0 : SETTLE_MS)
    return () => clearTimeout(timer)
  }

  /** Key by key: what is taken leaves the draft, what is refused stays with its reason. */
  async save(): Promise<void> {
    this.busy = true
    this.failure = undefined
    for (const [key, value] of Object.entries(this.edits)) {
      try {
        this.entries = await ask(this.#engine.backend, { type: 'set_config', key, value }, 'config')
        this.#engine.edits = without(this.#engine.edits, key)
      } catch (failed) {
        this.errors = { ...this.errors, [key]: toError(failed) }
      }
    }
    this.busy = false
  }

  #foreseen(outlook: Outlook): void {
    this.outlook = outlook
    // Why a value could not be written is not known to a preview.
    this.errors = Object.fromEntries(Object.entries(this.errors).filter(([, error]) => error.code !== 'bad_value'))
  }

  /** Says it at the field that the engine names; where it names none, above all of them. */
  #refused(failed: unknown, edits: Record<string, string>): void {
    const error = toError(failed)
    const key = Object.keys(edits).find((key) => failed instanceof Refused && new RegExp(`${key.replace('.', '\\.')}(?![\\w.])`).test(error.what))
    if (key === undefined) this.failure = error
    else this.errors = { [key]: error }
  }
}

function without<T>(all: Record<string, T>, key: string): Record<string, T> {
  const { [key]: _, ...rest } = all
  return rest
}
