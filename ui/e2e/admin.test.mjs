// The hub's admin page with a real hub: IDLEWATT_ADMIN is the address that `idlewatt-hub admin link` printed.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { faults, launch, picture, sideways } from './browser.mjs'

const link = process.env.IDLEWATT_ADMIN ?? ''
const origin = new URL(link).origin
let browser, page
const seen = { requests: [], complaints: [] }

before(async () => {
  browser = await launch()
  const context = await browser.newContext({ viewport: { width: 1180, height: 860 }, reducedMotion: 'reduce' })
  page = await context.newPage()
  page.setDefaultTimeout(20_000)
  page.on('request', (request) => seen.requests.push(request.url()))
  page.on('pageerror', (error) => seen.complaints.push(error.message))
  page.on('console', (message) => message.type() === 'error' && seen.complaints.push(message.text()))
})
after(() => browser?.close())

const settled = (text) => page.waitForFunction((text) => document.getElementById('told').textContent === text, text)

test('without a code it says how to come in', async () => {
  await page.goto(`${origin}/admin`)
  await page.getByText('idlewatt-hub admin link').waitFor()
  assert.deepEqual(await faults(page), [])
})

test('the code opens it, leaves the address, and works once', async () => {
  await page.goto(link)
  await page.getByRole('table').first().waitFor()
  assert.equal(new URL(page.url()).hash, '')
  const other = await (await browser.newContext()).newPage()
  await other.goto(link)
  assert.match(await other.getByRole('alert').innerText(), /works once/)
})

test('a circle is made, and somebody is invited into it with a code to scan', async () => {
  await page.getByLabel('New circle').fill('family')
  await page.getByLabel('may owe').fill('2.5')
  await page.getByRole('button', { name: 'Make it' }).click()
  await settled('The circle was made.')
  await page.getByLabel('Invite', { exact: true }).fill('grandma')
  await page.getByLabel('into').selectOption('family')
  await page.getByRole('button', { name: 'Make an invite' }).click()
  await page.getByRole('img', { name: 'The invite as a code to scan' }).waitFor()
  await settled('An invite for grandma was made.')
  const row = page.locator('#accounts tr').filter({ hasText: 'grandma' })
  assert.match(await row.innerText(), /family/)
})

test('suspending asks first, and is taken back', async () => {
  const row = page.locator('#accounts tr').filter({ hasText: 'grandma' })
  await row.getByRole('button', { name: 'Suspend' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
  await row.getByRole('button', { name: 'Suspend' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Suspend' }).click()
  await settled('grandma is suspended.')
  await row.getByRole('button', { name: 'Resume' }).click()
  await settled('grandma may ask again.')
})

test('what is refused is said in the hub’s words', async () => {
  await page.getByLabel('New circle').fill('family')
  await page.getByRole('button', { name: 'Make it' }).click()
  assert.match(await page.getByRole('alert').innerText(), /exists already/)
})

test('statements come as CSV with the ledger’s own head', async () => {
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'CSV' }).click()])
  const text = await (await import('node:fs/promises')).readFile(await download.path(), 'utf8')
  assert.match(text, /^account,/)
})

test('every act is in the audit log, and the page has no fault that axe sees, wide and narrow, in both themes', async () => {
  assert.match(await page.locator('#audit').innerText(), /admin page/)
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme })
    assert.deepEqual(await faults(page), [])
    await picture(page, `admin-${colorScheme}`)
  }
  await page.setViewportSize({ width: 390, height: 800 })
  assert.equal(await sideways(page), 0)
  await picture(page, 'admin-phone')
})

test('closing ends the session, and what it was opened with is worth nothing more', async () => {
  const session = await page.evaluate(() => sessionStorage.getItem('idlewatt.admin'))
  assert.ok(seen.requests.every((url) => !url.includes(session) && !url.includes('code=')))
  await page.getByRole('button', { name: 'Close this page' }).click()
  await page.getByText('idlewatt-hub admin link').waitFor()
  const ask = (headers) => page.evaluate(async (headers) => (await fetch('admin/act', { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: '{"command":"account_list"}' })).status, headers)
  assert.equal(await ask({ authorization: `Bearer ${session}` }), 401)
  assert.equal(await ask({ 'x-forwarded-for': '203.0.113.9', authorization: `Bearer ${session}` }), 403)
  assert.deepEqual(seen.complaints.filter((text) => !/status of 4\d\d/.test(text)), [])
})
