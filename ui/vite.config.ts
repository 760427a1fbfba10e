import { svelte } from '@sveltejs/vite-plugin-svelte'
import { svelteTesting } from '@testing-library/svelte/vite'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  plugins: [svelte(), svelteTesting()],
  // The engine serves the panel at `/`, the window from its own scheme: relative addresses fit both.
  base: './',
  build: {
    target: ['chrome123', 'firefox120', 'safari17.5'],
    // A `data:` address would need an exception in the content security policy.
    assetsInlineLimit: 0,
    // One bundle beside the plots: its parts are alike, and packed together they weigh less.
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
  },
  test: {
    environment: 'jsdom',
    // axe reads a hundred rows in a second; a busy machine takes many.
    testTimeout: 60_000,
    include: ['test/**/*.test.ts'],
    setupFiles: ['test/setup.ts'],
    env: { TZ: 'Europe/Berlin' },
  },
})
