import '@testing-library/jest-dom/vitest'

import { vi } from 'vitest'

document.documentElement.lang = 'en'

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
vi.mock('uplot', () => ({
  default: class {
    setSize(): void {}
    setData(): void {}
    destroy(): void {}
  },
}))
