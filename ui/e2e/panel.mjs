// What the panel's browser tests share: one logged-in page on the real engine.

export { faults, launch, picture, sideways } from './browser.mjs'

const address = process.env.IDLEWATT_PANEL_URL
if (!address) throw new Error('IDLEWATT_PANEL_URL is not set: give the address that `idlewatt run` printed, with its #code=…')

/** The printed address: its code is good once. */
export const panel = new URL(address)
export const pages = ['overview', 'schedule', 'power', 'models', 'networks', 'requests', 'settings']
/** What the engine at hand is known to have: `services`, `networks`, `requests`, `watts`. */
export const expected = new Set((process.env.IDLEWATT_EXPECT ?? '').split(',').filter(Boolean))

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

/** What the engine itself says, asked past the panel. */
export const ask = (page, request) =>
  page.evaluate(async (request) => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${sessionStorage.getItem('idlewatt.token')}` }
    const answer = await fetch('/api/control', { method: 'POST', headers, body: JSON.stringify(request) })
    return (await answer.json()).value
  }, request)
