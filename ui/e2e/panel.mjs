// What the browser tests share: one Chromium, one logged-in page on the real engine, pictures, and axe.

import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

import { chromium } from 'playwright-core'

const address = process.env.IDLEWATT_PANEL_URL
if (!address) throw new Error('IDLEWATT_PANEL_URL is not set: give the address that `idlewatt run` printed, with its #code=…')

/** The printed address: its code is good once. */
export const panel = new URL(address)
export const pages = ['overview', 'schedule', 'power', 'models', 'networks', 'requests', 'settings']
/** What the engine at hand is known to have: `services`, `networks`, `requests`, `watts`. */
export const expected = new Set((process.env.IDLEWATT_EXPECT ?? '').split(',').filter(Boolean))

const pictures = process.env.SCREENSHOT_DIR
if (pictures) mkdirSync(pictures, { recursive: true })
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--no-first-run'],
  })

/** A page that keeps account of what it asked for and what went wrong. */
export async function open(browser) {
  const context = await browser.newContext({
    viewport: { width: 1180, height: 860 },
    reducedMotion: 'reduce',
    timezoneId: process.env.TZ || 'UTC',
    permissions: ['clipboard-read', 'clipboard-write'],
  })
  const page = await context.newPage()
  const seen = { requests: [], complaints: [] }
  page.on('request', (request) => seen.requests.push(request.url()))
  page.on('pageerror', (error) => seen.complaints.push(error.message))
  page.on('console', (message) => message.type() === 'error' && seen.complaints.push(message.text()))
  page.setDefaultTimeout(15_000)
  return { context, page, seen }
}

export async function show(page, name) {
  await page.locator(`nav a[href="#/${name}"]:not(.brand)`).click()
  await page.waitForFunction((name) => document.querySelector('[aria-current="page"]')?.getAttribute('href') === `#/${name}`, name)
  await page.locator('main h1').waitFor()
  if (name === 'schedule') await page.getByRole('grid').waitFor()
  if (name === 'settings') await page.getByText('share.idle_after', { exact: true }).waitFor()
}

export async function picture(page, name) {
  if (pictures) await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true })
}

/** What axe finds wrong, as lines. */
export async function faults(page) {
  // Evaluated by the debugger's own way in: the page's content security policy lets no foreign script run.
  await page.evaluate(axe)
  return page.evaluate(async () => {
    const { violations } = await window.axe.run(document)
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) => `${id}: ${html} ${any[0]?.message ?? ''}`))
  })
}

/** What the engine itself says, asked past the panel. */
export const ask = (page, request) =>
  page.evaluate(async (request) => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${sessionStorage.getItem('idlewatt.token')}` }
    const answer = await fetch('/api/control', { method: 'POST', headers, body: JSON.stringify(request) })
    return (await answer.json()).value
  }, request)

/** How far the page scrolls sideways, in pixels; 0 where it fits. */
export const sideways = (page) => page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - innerWidth))
