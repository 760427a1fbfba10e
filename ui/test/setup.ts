import '@testing-library/jest-dom/vitest'

import { configure } from '@testing-library/svelte'

document.documentElement.lang = 'en'

// A page of its own bundle comes late on a busy machine.
configure({ asyncUtilTimeout: 20_000 })

// jsdom lays nothing out and draws nothing.
globalThis.ResizeObserver ??= class {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
}
globalThis.matchMedia ??= ((media: string) => ({
  media,
  matches: false,
  addEventListener: () => undefined,
  removeEventListener: () => undefined,
})) as unknown as typeof matchMedia
Element.prototype.scrollIntoView ??= () => undefined
globalThis.scrollTo = () => undefined
URL.createObjectURL ??= () => 'blob:test'
URL.revokeObjectURL ??= () => undefined
