// Pictures of every screen, light and dark: `node e2e/screens.mjs FOLDER`, for an engine that has served and its hub.

import { join } from 'node:path'

import { launch, open, panel, show } from './panel.mjs'

const folder = process.argv[2]
// More sizes, for a look at narrow windows and zoom: `SCREEN_SIZES=1100x760,1024x600,512x300`.
const sizes = (process.env.SCREEN_SIZES ?? '').split(',').filter(Boolean)

const browser = await launch()
const { context, page } = await open(browser)

async function both(name, of = page, fullPage = false) {
  for (const colorScheme of ['light', 'dark']) {
    await of.emulateMedia({ colorScheme })
    await of.screenshot({ path: join(folder, `${name}-${colorScheme}.png`), fullPage })
    for (const size of sizes) {
      const [width, height] = size.split('x').map(Number)
      await of.setViewportSize({ width, height })
      await of.screenshot({ path: join(folder, `${name}-${colorScheme}-${size}.png`), fullPage: true })
    }
    await of.setViewportSize({ width: 1180, height: 860 })
  }
}

await page.goto(panel.href)
await page.locator('nav').waitFor()
await show(page, 'overview')
await page.getByRole('img', { name: /^Power from/ }).waitFor()
await both('overview')
for (const name of ['schedule', 'power', 'models', 'networks', 'requests', 'settings']) {
  await show(page, name)
  if (name === 'power') await page.getByRole('slider').waitFor()
  if (name === 'networks') await page.getByText('Base URL').waitFor()
  if (name === 'schedule') await page.getByRole('list', { name: /^The next 48 hours/ }).waitFor()
  await both(name, page, name === 'power' || name === 'schedule')
}
await show(page, 'requests')
await page.getByLabel('Ended', { exact: true }).selectOption('complete')
await page.getByRole('row').filter({ hasText: 'garage' }).first().getByRole('link').click()
await page.getByRole('button', { name: 'Show the receipt' }).click()
await page.getByRole('link', { name: 'Download JSON' }).waitFor()
await page.getByRole('link', { name: '← All requests' }).hover()
await both('request')

const stranger = await browser.newContext({ viewport: { width: 1180, height: 860 }, reducedMotion: 'reduce' })
const login = await stranger.newPage()
await login.goto(panel.origin)
await login.getByRole('heading').waitFor()
await both('login', login)
await login.goto(process.env.IDLEWATT_HUB_URL)
await both('hub', login)

await Promise.all([context.close(), stranger.close()])
await browser.close()
