// The hub's chat page on a telephone-sized screen, with a real model behind it.
// IDLEWATT_INVITES: addresses of the page with an invite behind the #, each good once.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { devices } from 'playwright-core'

import { faults, launch, picture, sideways } from './browser.mjs'

const invites = (process.env.IDLEWATT_INVITES ?? '').split(' ').filter(Boolean)
const [first, second] = invites
const hub = new URL(first).origin

let browser, context, page
const seen = { requests: [], complaints: [] }

/** A telephone, or with `{}` a window on a desk. */
async function open(device = devices['iPhone 13']) {
  const { defaultBrowserType: _, ...options } = device
  const opened = await browser.newContext({ ...options, reducedMotion: 'reduce' })
  const page = await opened.newPage()
  page.setDefaultTimeout(30_000)
  page.on('request', (request) => seen.requests.push({ url: request.url(), body: request.postData() ?? '' }))
  page.on('pageerror', (error) => seen.complaints.push(error.message))
  page.on('console', (message) => message.type() === 'error' && seen.complaints.push(message.text()))
  return { context: opened, page }
}

const key = () => page.evaluate(() => JSON.parse(localStorage.getItem('idlewatt.key')))
const both = async (name) => {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme })
    assert.deepEqual(await faults(page), [], name)
    await picture(page, `chat-${name}-${colorScheme}`)
  }
  assert.equal(await sideways(page), 0, `${name} scrolls sideways`)
}

before(async () => {
  browser = await launch()
  ;({ context, page } = await open())
})
after(() => browser?.close())

test('without an invite the page says what it needs, and takes a pasted one', async () => {
  const answer = await page.goto(`${hub}/chat`)
  const policy = answer.headers()['content-security-policy']
  assert.match(policy, /default-src 'none'/)
  assert.ok(!policy.includes('unsafe'), policy)
  await page.getByRole('heading', { name: 'Chat with the models' }).waitFor()
  await both('welcome')
  await page.getByLabel('Invite link').fill('hello')
  await page.getByRole('button', { name: 'Look at it' }).tap()
  assert.match(await page.getByRole('alert').innerText(), /no invite and no key/)
})

test('an invite asks before anything happens, and its secret leaves the address at once', async () => {
  const before = seen.requests.length
  await page.goto(first)
  await page.getByRole('heading', { name: 'Let this browser in?' }).waitFor()
  assert.equal(new URL(page.url()).hash, '')
  assert.ok(!seen.requests.slice(before).some(({ url }) => url.includes('/join/key')))
  await both('confirm')
  await page.getByRole('button', { name: 'Chat here' }).tap()
  await page.getByLabel('Message').waitFor()
  const { key: made, account } = await key()
  assert.match(made, /^iw-/)
  assert.equal(account, 'guest')
})

test('an answer streams in, and says who gave it, what it cost and took', async () => {
  await page.getByLabel('Message').fill('Why is the sky blue? Answer in two sentences.')
  await page.getByRole('button', { name: 'Send' }).tap()
  const answer = page.getByRole('article', { name: 'Answer' })
  await answer.and(page.locator('[aria-busy]')).waitFor()
  await answer.and(page.locator(':not([aria-busy])')).waitFor()
  await answer.getByText(/^answered by/).waitFor()
  await answer.getByRole('button', { name: 'receipt' }).waitFor()
  const told = await answer.innerText()
  assert.match(told, /answered by [0-9a-f]{12}/)
  assert.match(told, /\d+ tokens?/)
  assert.match(told, /credits/)
  assert.match(told, /energy unknown|measured|estimated/)
  await both('answer')
})

test('a stopped answer stays as far as it came, and the next one follows', async () => {
  await page.getByLabel('Message').fill('Count from one to two hundred in words.')
  await page.getByRole('button', { name: 'Send' }).tap()
  const answer = page.getByRole('article', { name: 'Answer' }).nth(1)
  await page.waitForFunction(() => (document.querySelectorAll('.answer')[1]?.querySelector(':scope > .said')?.textContent.length ?? 0) > 10)
  await page.getByRole('button', { name: 'Stop' }).tap()
  await answer.getByText('stopped by you').waitFor()
  await page.getByRole('button', { name: 'Send' }).waitFor()
  await page.getByRole('button', { name: 'New chat' }).tap()
  assert.equal(await page.getByRole('article').count(), 0)
})

test('what cannot be answered is said in the hub’s words, with a way on', async () => {
  await page.route('**/v1/chat/completions', (route) =>
    route.fulfill({
      contentType: 'text/event-stream',
      body: 'data: {"choices":[{"delta":{"content":"Half an"}}]}\n\ndata: {"error":{"message":"The node broke off. Try again."}}\n\n',
    }))
  await page.getByLabel('Message').fill('Hello')
  await page.getByRole('button', { name: 'Send' }).tap()
  await page.getByRole('alert').getByText('The node broke off').waitFor()
  await both('broken')
  await page.unroute('**/v1/chat/completions')
  await page.getByRole('button', { name: 'Try again' }).tap()
  await page.getByRole('button', { name: 'receipt' }).waitFor()
  assert.equal(await page.getByRole('alert').getByText('broke off').count(), 0)
})

test('what a model writes is text, never markup', async () => {
  await page.route('**/v1/chat/completions', (route) =>
    route.fulfill({ contentType: 'text/event-stream', body: 'data: {"choices":[{"delta":{"content":"<img src=x onerror=alert(1)>"}}]}\n\ndata: [DONE]\n\n' }))
  await page.getByLabel('Message').fill('Markup')
  await page.getByRole('button', { name: 'Send' }).tap()
  await page.getByText('<img src=x onerror=alert(1)>').waitFor()
  assert.equal(await page.locator('#log img').count(), 0)
  await page.unroute('**/v1/chat/completions')
})

test('the key stays in this browser: in no address, and in no request but in its header', async () => {
  const { key: made } = await key()
  for (const { url, body } of seen.requests) {
    assert.ok(!url.includes(made) && !url.includes('token='), url)
    assert.ok(!body.includes(made), url)
  }
  await page.reload()
  await page.getByLabel('Message').waitFor()
})

test('an invite works once; the next one is told so', async () => {
  await page.goto(first)
  await page.getByText(/has a key of the account guest already/).waitFor()
  await page.getByRole('button', { name: 'Chat here' }).tap()
  assert.match(await page.getByRole('alert').innerText(), /used already/)
  await page.getByRole('button', { name: 'Not now' }).tap()
  await page.getByLabel('Message').waitFor()
})

test('forgetting the device ends its key', async () => {
  const { key: made } = await key()
  await page.getByRole('button', { name: 'This device' }).tap()
  await both('device')
  await page.getByRole('button', { name: 'Forget this device' }).tap()
  await page.getByLabel('Invite link').waitFor()
  assert.equal(await key(), null)
  const status = await page.evaluate(async (key) => (await fetch('v1/models', { headers: { authorization: `Bearer ${key}` } })).status, made)
  assert.equal(status, 401)
})

test('at a desk it works by keyboard alone', async () => {
  await context.close()
  ;({ context, page } = await open({ viewport: { width: 1180, height: 860 } }))
  await page.goto(second)
  await page.getByRole('button', { name: 'Chat here' }).waitFor()
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => document.activeElement?.id === 'text')
  await page.keyboard.type('Count from one to two hundred in words.')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => (document.querySelector('.answer > .said')?.textContent.length ?? 0) > 10)
  await page.keyboard.press('Escape')
  await page.getByText('stopped by you').waitFor()
  await page.waitForFunction(() => document.activeElement?.id === 'text')
  await both('desk')
})

test('nothing was loaded from elsewhere, and nothing complained but of what was refused', async () => {
  assert.deepEqual(seen.requests.filter(({ url }) => !url.startsWith(hub) && !url.startsWith('blob:')), [])
  const complaints = seen.complaints.filter((text) => !/status of 4\d\d/.test(text))
  assert.deepEqual(complaints, [])
})
