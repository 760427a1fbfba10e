// The panel on the real engine: every page, by mouse and by keyboard, in both themes.

import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { after, before, test } from 'node:test'

import { ask, expected, faults, launch, open, pages, panel, picture, show, sideways } from './panel.mjs'

let browser, page, seen

before(async () => {
  browser = await launch()
  ;({ page, seen } = await open(browser))
})
after(() => browser?.close())

test('the printed address opens the panel, and the code leaves the address', async () => {
  const answer = await page.goto(panel.href)
  await page.locator('main h1').waitFor()
  await page.locator('nav').waitFor()
  assert.ok(!page.url().includes('code='), page.url())
  const policy = answer.headers()['content-security-policy'] ?? ''
  assert.match(policy, /default-src '(none|self)'/)
  assert.ok(!/script-src[^;]*unsafe/.test(policy), policy)
})

test('the code works once; the next one is told so in the words of the engine', async () => {
  const { context, page: other } = await open(browser)
  await other.goto(panel.href)
  const alert = other.getByRole('alert')
  await alert.waitFor()
  assert.match(await alert.innerText(), /idlewatt panel/)
  for (const colorScheme of ['light', 'dark']) {
    await other.emulateMedia({ colorScheme })
    assert.deepEqual(await faults(other), [])
    await picture(other, `login-${colorScheme}`)
  }
  await context.close()
})

test('the overview leads with the engine’s sentence', async () => {
  await show(page, 'overview')
  const sentence = await page.locator('main h1').innerText()
  assert.match(sentence, /^(Sharing|Ready|Paused|Offline|Giving|Stopping)\b/)
  const told = await page.locator('[aria-live="polite"]').innerText()
  assert.equal(told.split(/\P{L}/u)[0], sentence.split(/\P{L}/u)[0])
})

for (const name of pages) {
  test(`${name}: no fault that axe sees, fits 1024 × 600 and 200 % zoom, in both themes`, async () => {
    await show(page, name)
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme })
      assert.deepEqual(await faults(page), [])
      await picture(page, `${name}-${colorScheme}`)
    }
    // 512 × 300 is what is left of 1024 × 600 at 200 %.
    for (const [width, height] of [[1024, 600], [512, 300]]) {
      await page.setViewportSize({ width, height })
      assert.equal(await sideways(page), 0, `${name} scrolls sideways at ${width}`)
      await picture(page, `${name}-${width}x${height}`)
    }
    await page.setViewportSize({ width: 1180, height: 860 })
  })
}

test('targets are at least 24 pixels high, buttons and fields 32', async () => {
  for (const name of pages) {
    await show(page, name)
    const small = await page.evaluate(() =>
      [...document.querySelectorAll('button, input:not([type=radio]), select, textarea, nav a')]
        .map((element) => ({ element, box: element.getBoundingClientRect() }))
        .filter(({ box }) => box.height > 0 && (box.height < 32 || box.width < 32))
        .map(({ element, box }) => `${element.outerHTML.slice(0, 80)} ${box.width}×${box.height}`),
    )
    assert.deepEqual(small, [], name)
  }
})

test('a pause is chosen, holds over a reload, and is taken back', async () => {
  await show(page, 'overview')
  await page.getByRole('button', { name: 'Pause…' }).click()
  await page.getByRole('button', { name: 'For an hour' }).click()
  const resume = page.getByRole('button', { name: 'Resume' })
  await resume.waitFor()
  assert.match(await page.locator('main h1').innerText(), /^Paused/)
  assert.match(await page.locator('main header').innerText(), /until \S+/)
  await picture(page, 'overview-paused')
  await page.reload()
  await resume.click()
  await page.getByRole('button', { name: 'Pause…' }).waitFor()
})

test('the week is painted, foreseen, saved, and then the engine’s own week is the one painted', async () => {
  await show(page, 'schedule')
  const text = page.getByLabel('The same as text')
  const slot = (name) => page.getByRole('gridcell', { name: new RegExp(`^${name}`) })
  const was = await text.inputValue()
  await page.getByRole('button', { name: 'Off', exact: true }).click()
  assert.equal(await text.inputValue(), 'never')
  const ahead = page.getByRole('list', { name: /^The next 48 hours, with what you have not saved/ })
  await ahead.getByText(/hours|window/i).first().waitFor()
  const [from, to] = [await slot('Monday 22:00').boundingBox(), await slot('Thursday 23:30').boundingBox()]
  await page.mouse.move(from.x + 2, from.y + 5)
  await page.mouse.down()
  await page.mouse.move(to.x + 2, to.y + 5, { steps: 6 })
  await picture(page, 'schedule-painting')
  await page.mouse.up()
  assert.equal(await text.inputValue(), 'Mon-Thu 22:00-24:00')
  await slot('Tuesday 00:00').focus()
  await page.keyboard.press('Shift+End')
  for (let i = 0; i < 34; i += 1) await page.keyboard.press('Shift+ArrowLeft')
  for (let i = 0; i < 3; i += 1) await page.keyboard.press('Shift+ArrowDown')
  await page.keyboard.press('Space')
  assert.equal(await text.inputValue(), 'Mon-Thu 22:00-07:00')
  await page.getByText('Tuesday to Friday 00:00–07:00 shared', { exact: true }).waitFor({ state: 'attached' })
  assert.deepEqual(await faults(page), [])
  await picture(page, 'schedule-painted')
  assert.equal((await ask(page, { type: 'schedule' })).week[0][46], was === 'always' || was.startsWith('Mon'))
  await page.getByRole('button', { name: 'Save', exact: true }).click()
  await page.getByRole('button', { name: 'Undo all' }).waitFor({ state: 'detached' })
  const { week, exact } = await ask(page, { type: 'schedule' })
  assert.ok(exact)
  const shown = await page.getByRole('gridcell').evaluateAll((cells) => cells.map((cell) => !cell.ariaLabel.endsWith('not shared')))
  assert.deepEqual(shown, week.flat())
  await page.reload()
  assert.equal(await text.inputValue(), 'Mon-Thu 22:00-07:00')
  await text.fill(was)
  await page.getByRole('button', { name: 'Save', exact: true }).click()
  await page.getByRole('button', { name: 'Undo all' }).waitFor({ state: 'detached' })
})

test('what is wrong in hours or rules is said at its field in the engine’s words, and nothing of it is kept', async () => {
  await show(page, 'schedule')
  const text = page.getByLabel('The same as text')
  const was = await text.inputValue()
  await text.fill('Mon-Fry 22:00-07:00')
  const alert = page.getByRole('alert')
  await alert.waitFor()
  assert.match(await alert.innerText(), /"Fry" is no day of the week/)
  assert.equal(await text.getAttribute('aria-invalid'), 'true')
  const idle = page.getByRole('textbox', { name: /^Share once nobody has touched/ })
  await text.fill(was)
  await idle.fill('soon')
  await alert.getByText(/no value for share\.idle_after/).waitFor()
  assert.equal(await idle.getAttribute('aria-invalid'), 'true')
  await picture(page, 'schedule-refused')
  await page.getByRole('button', { name: 'Undo all' }).click()
  await alert.waitFor({ state: 'detached' })
  await text.fill('Mon 22:10-23:00')
  await page.getByText('The grid shows half hours; these hours are finer.').waitFor()
  assert.equal(await page.getByRole('grid').getAttribute('aria-readonly'), 'true')
  await picture(page, 'schedule-finer')
  await page.getByRole('button', { name: 'Undo all' }).click()
  assert.equal(await text.inputValue(), was)
})

test('a rule is a sentence, a program is chosen from those that run; both are kept', async () => {
  await show(page, 'schedule')
  const games = page.getByRole('combobox', { name: 'While a game runs, ….' })
  await games.selectOption('go on')
  await page.getByRole('button', { name: 'Add a program…' }).click()
  await page.getByRole('list', { name: 'Running now' }).or(page.getByText(/^No program that runs now/)).waitFor()
  await page.getByLabel('Name or path of a program').fill('blender')
  await page.keyboard.press('Enter')
  await page.getByRole('combobox', { name: 'While blender runs' }).selectOption('go on under the lower cap')
  assert.deepEqual(await faults(page), [])
  await picture(page, 'schedule-rules')
  await page.getByRole('button', { name: 'Save', exact: true }).click()
  await page.getByRole('button', { name: 'Undo all' }).waitFor({ state: 'detached' })
  const config = await ask(page, { type: 'config' })
  assert.equal(config.find(({ key }) => key === 'share.games').value, 'true')
  assert.equal(config.find(({ key }) => key === 'share.apps').value, 'blender=cap')
  await page.getByRole('button', { name: 'Remove blender' }).click()
  await games.selectOption('pause')
  await page.getByRole('button', { name: 'Save', exact: true }).click()
  await page.getByRole('button', { name: 'Undo all' }).waitFor({ state: 'detached' })
})

test('the GPU is taken back with one button and lent again with another', async () => {
  await show(page, 'overview')
  const back = page.getByRole('button', { name: 'Give my GPU back' })
  if (expected.has('networks')) await back.waitFor()
  if ((await back.count()) === 0) return
  await back.click()
  await page.getByRole('button', { name: 'Resume' }).click()
  await back.waitFor()
})

test('a setting is changed live, a bad value is refused with what, why and what to do', async () => {
  await show(page, 'settings')
  const field = page.getByLabel('share.idle_after', { exact: true })
  const was = await field.inputValue()
  await field.fill('7m')
  await field.press('Enter')
  await page.getByText('Saved', { exact: true }).waitFor()
  await page.reload()
  await field.waitFor()
  assert.match(await field.inputValue(), /^7 ?m/)
  await field.fill('soon')
  await field.press('Enter')
  const alert = page.getByRole('alert')
  await alert.waitFor()
  assert.ok((await alert.locator('p').count()) === 3, await alert.innerText())
  assert.equal(await field.inputValue(), 'soon')
  assert.equal(await field.getAttribute('aria-invalid'), 'true')
  assert.deepEqual(await faults(page), [])
  await picture(page, 'settings-refused')
  await field.fill(was)
  await field.press('Enter')
  await page.getByText('Saved', { exact: true }).waitFor()
})

test('what names files and addresses is read-only here and shows its command', async () => {
  await show(page, 'settings')
  await page.getByRole('button', { name: 'Model servers', exact: true }).click()
  await page.getByText('idlewatt config set servers.urls …').waitFor()
  assert.equal(await page.getByRole('textbox', { name: 'servers.urls' }).count(), 0)
  await page.getByRole('searchbox').fill('nothing has such words')
  await page.getByText('No setting has these words.').waitFor()
  await page.getByRole('button', { name: 'When to share', exact: true }).click()
})

test('the own endpoint shows its key when asked, and copies it', async () => {
  await show(page, 'settings')
  const own = page.getByRole('region', { name: 'Programs on this machine' })
  assert.match(await own.locator('code').first().innerText(), /^http:\/\/.*\/v1$/)
  const key = own.locator('code').last()
  assert.match(await key.innerText(), /^•+$/)
  await own.getByRole('button', { name: 'Show' }).click()
  const text = await key.innerText()
  assert.match(text, /^\S{16,}$/)
  await own.getByRole('button', { name: 'Copy: Key' }).click()
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), text)
  await own.getByRole('button', { name: 'Hide' }).click()
})

test('what is no invite is said before anything is sent; a hub that is down is said after', async () => {
  await show(page, 'networks')
  const field = page.locator('#invite')
  await field.fill('https://example.com/')
  await page.getByRole('button', { name: 'Look at it' }).click()
  await page.getByRole('alert').getByText('This is not an invite.').waitFor()
  const { x } = generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })
  await field.fill(`idlewatt://join?hub=http://127.0.0.1:9/&key=${x}&token=abcdefghijklmnopqrstuvwx`)
  await page.getByRole('button', { name: 'Look at it' }).click()
  await page.getByText('127.0.0.1:9 (this machine)').waitFor()
  await picture(page, 'networks-confirm')
  await page.getByRole('button', { name: 'Join', exact: true }).click()
  const alert = page.getByRole('alert')
  await alert.waitFor()
  assert.equal(await alert.locator('p').count(), 3, await alert.innerText())
  assert.deepEqual(await faults(page), [])
  await picture(page, 'networks-refused')
})

test('the whole way is open to a keyboard, and the focus is seen', async () => {
  await page.goto(`${panel.origin}/#/overview`)
  await page.reload()
  await page.locator('main h1').waitFor()
  await page.evaluate(() => document.activeElement instanceof HTMLElement && document.activeElement.blur())
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Skip to the page')
  const names = []
  for (let i = 0; i < 8; i += 1) {
    await page.keyboard.press('Tab')
    const { text, outline } = await page.evaluate(() => ({
      text: document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.textContent?.trim(),
      outline: getComputedStyle(document.activeElement).outlineStyle,
    }))
    assert.notEqual(outline, 'none', `${text} shows no focus`)
    names.push(text)
  }
  assert.deepEqual(names, ['Idlewatt: Overview', 'Overview', 'Schedule', 'Power', 'Models', 'Networks', 'Requests', 'Settings'])
  await page.keyboard.press('Enter')
  await page.getByText('share.idle_after', { exact: true }).waitFor()
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'page')
  await page.goto(`${panel.origin}/#/overview`)
  await page.getByRole('button', { name: 'Pause…' }).focus()
  await page.keyboard.press('Enter')
  await page.keyboard.press('ArrowDown')
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'For an hour')
  await page.keyboard.press('Escape')
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Pause…')
})

test('the cap is dragged, moved by keys, typed; what the card cannot take is refused', async () => {
  await show(page, 'power')
  const slider = page.getByRole('slider')
  if (expected.has('watts')) await slider.first().waitFor()
  if ((await slider.count()) === 0) return
  const field = page.getByLabel('Your cap')
  const at = async () => Number(await slider.getAttribute('aria-valuenow'))
  const [min, max, was] = [Number(await slider.getAttribute('aria-valuemin')), Number(await slider.getAttribute('aria-valuemax')), await at()]
  const holds = async (watts) => {
    await page.getByText('Saved', { exact: true }).waitFor()
    assert.equal(await at(), watts)
    await page.reload()
    await slider.waitFor()
    assert.equal(await at(), watts)
    assert.equal(await field.inputValue(), String(watts))
  }

  const handle = await slider.boundingBox()
  const [x, y] = [handle.x + handle.width / 2, handle.y + handle.height / 2]
  await page.mouse.move(x, y)
  await page.mouse.down()
  await page.mouse.move(x, y - 20, { steps: 4 })
  const dragged = await at()
  assert.ok(dragged > was && dragged <= max, `${was} W dragged up is ${dragged} W`)
  await page.keyboard.press('Escape')
  await page.mouse.up()
  assert.equal(await at(), was)
  await page.mouse.move(x, y)
  await page.mouse.down()
  await page.mouse.move(x, y - 20, { steps: 4 })
  await page.mouse.up()
  await holds(dragged)

  await slider.focus()
  await page.keyboard.press('PageDown')
  await page.keyboard.press('ArrowUp')
  await picture(page, 'power-moved')
  await page.keyboard.press('Enter')
  await holds(Math.max(min, dragged - 25) + 5)

  await field.fill(String(max + 1))
  assert.equal(await field.getAttribute('aria-invalid'), 'true')
  assert.match(await page.getByRole('alert').innerText(), new RegExp(`to ${max.toLocaleString('en')} W`))
  assert.ok(await page.getByRole('button', { name: 'Save' }).isDisabled())
  assert.deepEqual(await faults(page), [])
  await picture(page, 'power-refused')
  await field.fill(String(was))
  await field.press('Enter')
  await holds(was)
  await page.getByRole('button', { name: 'Back to the default' }).first().click()
  await page.getByText('Saved', { exact: true }).waitFor()
})

test('the curve of a card is also a table', async () => {
  await show(page, 'power')
  const toggle = page.getByRole('button', { name: 'Show as a table' }).first()
  if (expected.has('watts')) await toggle.waitFor()
  if ((await toggle.count()) === 0) return
  await toggle.click()
  await page.getByRole('table', { name: /^Power from/ }).waitFor()
  assert.deepEqual(await faults(page), [])
  await page.getByRole('button', { name: 'Show as a picture' }).click()
  await page.getByRole('slider').waitFor()
})

test('models that were found can be looked for again', async () => {
  await show(page, 'models')
  await page.getByRole('button', { name: 'Look again' }).click()
  await page.getByRole('button', { name: 'Look again' }).waitFor()
  const switches = await page.getByRole('switch').count()
  if (expected.has('services')) assert.ok(switches > 0, 'no model was found')
  if (switches === 0) await page.getByText('Models that run on this machine will be listed here.').waitFor()
})

test('networks show how they stand, and leaving asks first', async () => {
  await show(page, 'networks')
  const leave = page.getByRole('button', { name: 'Leave…' })
  if (expected.has('networks')) await leave.first().waitFor()
  if ((await leave.count()) === 0) return
  const before = await leave.count()
  await leave.first().click()
  await page.getByRole('button', { name: 'Cancel' }).click()
  assert.equal(await leave.count(), before)
})

test('a request opens into its timeline and its receipt', async () => {
  await show(page, 'requests')
  const first = page.locator('tbody a').first()
  if (expected.has('requests')) await first.waitFor()
  if ((await first.count()) === 0) return
  await page.getByRole('button', { name: 'Time' }).press('Enter')
  assert.equal(await page.getByRole('columnheader', { name: 'Time' }).getAttribute('aria-sort'), 'descending')
  await page.getByLabel('Ended', { exact: true }).selectOption('complete')
  await first.click()
  await page.getByText('First token', { exact: true }).waitFor()
  await page.getByText('A receipt proves who said what; it does not prove which model ran.').waitFor()
  const ask = page.getByRole('button', { name: 'Show the receipt' })
  if ((await ask.count()) > 0) {
    await ask.click()
    const link = page.getByRole('link', { name: 'Download JSON' })
    const [file] = await Promise.all([page.waitForEvent('download'), link.click()])
    assert.match(file.suggestedFilename(), /^req_[0-9a-f]{32}\.receipt\.json$/)
  }
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme })
    assert.deepEqual(await faults(page), [])
    await picture(page, `request-${colorScheme}`)
  }
})

test('a lost connection is said calmly, and mends itself', async () => {
  await page.goto(`${panel.origin}/#/overview`)
  await page.route('**/api/events', (route) => route.abort())
  await page.reload()
  const lost = page.getByText('Connection lost, trying again.')
  await lost.waitFor()
  await picture(page, 'overview-lost')
  await page.unroute('**/api/events')
  await lost.waitFor({ state: 'detached' })
  await page.locator('main h1').waitFor()
  seen.complaints = seen.complaints.filter((line) => !line.includes('ERR_FAILED'))
})

test('nothing was loaded from anywhere else, and nothing was complained about', () => {
  const foreign = seen.requests.filter((url) => new URL(url).origin !== panel.origin && !url.startsWith(`blob:${panel.origin}`))
  assert.deepEqual(foreign, [])
  assert.deepEqual(seen.complaints, [])
})
