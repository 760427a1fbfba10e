// A conversation with a model of this hub. The key is kept in this browser; what is said is kept nowhere.

import { $, ask, bytes, credits, el, energy, number, payload, Refused, say } from './page.js'

const KEPT = 'idlewatt.key'
const MODEL = 'idlewatt.model'
const SCOPE = 'idlewatt.scope'

/** `{key, account}` of this browser. */
let held = read()
/** The invite that somebody came with: its parts, until it is used or left. */
let invite
let models = new Map()
/** What was said, as the model is told it. */
let said = []
/** Ends the answer that is being written. */
let stop

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? undefined
  } catch {
    return undefined
  }
}

function keep(next) {
  held = next
  if (next === undefined) localStorage.removeItem(KEPT)
  else localStorage.setItem(KEPT, JSON.stringify(next))
}

// Getting in

/** The parts of an invite, in either of its forms; `undefined` where it is none. */
function invited(text) {
  const link = text.trim()
  const parts = /^idlewatt:\/\/join\?(.*)$/s.exec(link)?.[1] ?? /^https?:\/\/[^#]+\/join#(.*)$/s.exec(link)?.[1]
  const found = new URLSearchParams(parts)
  return found.get('token') ? found : undefined
}

function show(which) {
  for (const part of ['welcome', 'confirm', 'chat']) $(part).hidden = part !== which
  $('tools').hidden = which !== 'chat'
  if (which === 'chat') $('text').focus()
  if (which === 'welcome') $('link').focus()
}

function welcome(error) {
  say($('welcome-wrong'), error)
  show('welcome')
}

function confirm() {
  const old = held && `This browser has a key of the account ${held.account} already. It is replaced, and ended.`
  $('confirm-old').textContent = old ?? ''
  $('confirm-old').hidden = old === undefined
  // Telephones lend no GPU.
  $('in-app').hidden = matchMedia('(pointer: coarse)').matches
  const parts = new URLSearchParams(invite)
  if (!parts.has('hub')) parts.append('hub', location.origin)
  $('in-app-link').href = `idlewatt://join?${parts}`
  say($('confirm-wrong'))
  show('confirm')
  $('accept').focus()
}

async function accept() {
  $('accept').disabled = true
  try {
    const made = await (await ask('join/key', { body: { token: invite.get('token') } })).json()
    const old = held
    keep({ key: made.key, account: made.account })
    invite = undefined
    // A key that nobody holds any more should open nothing. That it stays good harms nobody else.
    if (old) ask('join/forget', { key: old.key, body: {} }).catch(() => undefined)
    await open()
  } catch (error) {
    say($('confirm-wrong'), error)
  }
  $('accept').disabled = false
}

async function enter(event) {
  event.preventDefault()
  const text = $('link').value.trim()
  invite = invited(text)
  if (invite) {
    $('link').value = ''
    confirm()
  } else if (text.startsWith('iw-')) {
    keep({ key: text, account: '' })
    $('link').value = ''
    await open()
  } else {
    welcome(new Error('This is no invite and no key. An invite is a link with /join# in it, or one that starts with idlewatt://join; a key starts with iw-. Copy the whole of it.'))
  }
}

/** Opens the conversation where the hub knows the key. */
async function open() {
  try {
    await look()
  } catch (error) {
    if (error.status === 401) {
      keep(undefined)
      return welcome(new Error('The hub does not know this browser’s key any more: it was ended, or is of another hub. Ask for a new invite.'))
    }
    return welcome(error)
  }
  show('chat')
}

// Models

async function look() {
  const { data } = await (await ask('v1/models', { key: held.key })).json()
  models = new Map(data.filter(({ idlewatt }) => idlewatt.capabilities.some((can) => can.chat)).map((one) => [one.id, one.idlewatt]))
  const wanted = $('model').value || localStorage.getItem(MODEL)
  const standing = ({ available, warm }) => (!available ? ' · away' : warm ? '' : ' · loads first')
  // A name without its quantisation means any; where there is only one, both say the same.
  const shown = [...models].filter(([id, one]) => id.includes(':') || [...models].filter(([other]) => other.startsWith(`${id}:`)).length !== 1 || one.nodes === 0)
  $('model').replaceChildren(...shown.map(([id, one]) => el('option', { value: id }, id + standing(one))))
  if (models.has(wanted) && shown.some(([id]) => id === wanted)) $('model').value = wanted
  else $('model').value = (shown.find(([, one]) => one.available && one.warm) ?? shown.find(([, one]) => one.available) ?? shown[0])?.[0] ?? ''
  describe()
}

function describe() {
  const one = models.get($('model').value)
  $('send').disabled = one === undefined
  if (one === undefined) return void ($('about-model').textContent = 'No model is shared here now. It appears when a machine of this hub shares one.')
  const { min, max } = one.price
  const price = max === 0 ? 'free' : `${min === max ? '' : `${number(min / 1e6, 2)} to `}${credits(max)} a million tokens`
  const machines = one.nodes === 1 ? 'one machine' : `${one.nodes} machines`
  $('about-model').textContent = [price, machines, one.available ? '' : 'none of them takes requests now'].filter(Boolean).join(' · ')
}

// Talking

function near() {
  const log = $('log')
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80
}

function down() {
  $('log').scrollTop = $('log').scrollHeight
}

/** The answer as it comes, and what is known of it afterwards. */
function paper() {
  const text = el('p', { class: 'said' })
  const thought = el('p', { class: 'said' })
  const thinking = el('details', { hidden: true }, el('summary', {}, 'What it considered'), thought)
  const told = el('p', { class: 'told' })
  const article = el('article', { class: 'answer', 'aria-busy': 'true', 'aria-label': 'Answer' }, thinking, text, told)
  $('log').append(article)
  const write = (place, more) => {
    const follow = near()
    place.append(more)
    place.normalize()
    if (follow) down()
  }
  return {
    article,
    told,
    add: (more) => write(text, more),
    think: (more) => ((thinking.hidden = false), write(thought, more)),
    text: () => text.textContent,
    done: () => article.removeAttribute('aria-busy'),
  }
}

/** The data of each whole event of a stream. */
async function* events(body) {
  let rest = ''
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      rest += value
      const whole = rest.split(/\r?\n\r?\n/)
      rest = whole.pop()
      for (const event of whole) {
        const data = event.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart()).join('\n')
        if (data !== '') yield data
      }
    }
  } finally {
    reader.cancel().catch(() => undefined)
  }
}

async function submit(event) {
  event?.preventDefault()
  const text = $('text').value.trim()
  if (text === '' || stop || $('send').disabled) return
  $('text').value = ''
  $('empty').hidden = true
  $('log').append(el('article', { class: 'you said', 'aria-label': 'You' }, text))
  down()
  said.push({ role: 'user', content: text })
  await answer()
}

async function answer() {
  const model = $('model').value
  const page = paper()
  const ending = new AbortController()
  stop = () => ending.abort()
  working(true)
  let receipt
  let whole = false
  try {
    const got = await ask('v1/chat/completions', {
      key: held.key,
      body: { model, messages: said, stream: true },
      headers: $('scope').value === '' ? {} : { 'x-idlewatt-scope': $('scope').value },
      signal: ending.signal,
    })
    receipt = got.headers.get('x-idlewatt-receipt') ?? undefined
    const node = got.headers.get('x-idlewatt-node')
    if (node) page.told.replaceChildren(el('span', {}, 'answered by ', el('code', {}, node)))
    for await (const data of events(got.body)) {
      if (data === '[DONE]') whole = true
      else {
        const chunk = JSON.parse(data)
        if (chunk.error) throw new Refused(0, chunk.error.message)
        const delta = chunk.choices?.[0]?.delta ?? {}
        if (delta.reasoning_content) page.think(delta.reasoning_content)
        if (delta.content) page.add(delta.content)
      }
    }
    if (!whole) throw new Refused(0, 'The answer broke off: the connection to the hub ended. Only what arrived is billed.')
    said.push({ role: 'assistant', content: page.text() })
  } catch (error) {
    if (ending.signal.aborted) {
      page.told.append(el('span', {}, 'stopped by you'))
      // What it had said so far is part of what follows.
      if (page.text() !== '') said.push({ role: 'assistant', content: page.text() })
      else said.pop()
    } else failed(page, error)
  }
  page.done()
  stop = undefined
  working(false)
  if (receipt && page.text() !== '') void settle(page, receipt)
}

function failed(page, error) {
  const broken = error instanceof Refused ? error : new Refused(0, 'The answer could not be read. Try again.')
  // A key that may not do this one thing is still a key.
  const ended = broken.status === 401
  const again = el('button', { type: 'button', onclick: () => (page.article.remove(), void answer()) }, 'Try again')
  const enter = el('button', { type: 'button', onclick: () => (keep(undefined), welcome(broken)) }, 'Use another invite')
  page.article.append(el('div', { class: 'wrong stack', role: 'alert' }, el('p', {}, broken.message), el('div', { class: 'row' }, ended ? enter : again)))
  if (near()) down()
}

/** What it cost and took, as the receipt says. */
async function settle(page, id) {
  try {
    const file = await (await ask(`v1/receipts/${encodeURIComponent(id)}`, { key: held.key })).json()
    const receipt = payload(file.receipt)
    const { segments } = receipt
    const names = await Promise.all(segments.map(({ node }) => short(node)))
    const nodes = names.map((name, i) => el('span', {}, i === 0 ? 'answered by ' : 'carried on by ', el('code', {}, name)))
    const statements = segments.map(({ statement }) => (statement.signed ? payload(statement.signed) : undefined))
    const used = statements.map((one) => one?.energy?.total_mj ?? one?.energy?.marginal_mj)
    const labels = new Set(statements.map((one) => one?.energy?.label))
    const tokens = segments.reduce((sum, { usage }) => sum + usage.completion, 0)
    const earned = segments.reduce((sum, one) => sum + one.earned, 0)
    const facts = [
      `${number(tokens)} ${tokens === 1 ? 'token' : 'tokens'}`,
      receipt.cost === 0 ? (earned === 0 ? 'no credits' : '') : credits(receipt.cost),
      used.every((mj) => mj !== undefined)
        ? `${energy(used.reduce((sum, mj) => sum + mj, 0))} ${labels.size === 1 ? [...labels][0] : 'estimated'}`
        : 'energy unknown',
    ].filter(Boolean)
    const download = el('button', { type: 'button', class: 'quiet', onclick: () => save(`${id}.receipt.json`, file) }, 'receipt')
    const stopped = page.told.textContent.includes('stopped by you') ? [el('span', {}, 'stopped by you')] : []
    page.told.replaceChildren(...stopped, ...nodes, ...facts.map((fact) => el('span', {}, fact)), el('span', {}, download))
  } catch {
    page.told.append(el('span', {}, 'its receipt is not there yet'))
  }
}

/** What hubs and their pages call a node: the beginning of its key's digest. */
async function short(key) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes(key)))
  return [...digest.slice(0, 6)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

function save(name, value) {
  const address = URL.createObjectURL(new Blob([JSON.stringify(value, null, 2)], { type: 'application/json' }))
  el('a', { href: address, download: name }).click()
  URL.revokeObjectURL(address)
}

function working(on) {
  $('stop').hidden = !on
  $('send').hidden = on
  $('new').disabled = on || said.length === 0
  if (on) $('stop').focus({ preventScroll: true })
  else if (!matchMedia('(pointer: coarse)').matches) $('text').focus({ preventScroll: true })
}

function anew() {
  said = []
  for (const article of [...$('log').querySelectorAll('article')]) article.remove()
  $('empty').hidden = false
  working(false)
}

// The page

$('enter').addEventListener('submit', enter)
$('accept').addEventListener('click', accept)
$('decline').addEventListener('click', () => ((invite = undefined), held ? void open() : welcome()))
$('ask').addEventListener('submit', submit)
$('stop').addEventListener('click', () => stop?.())
$('new').addEventListener('click', anew)
$('text').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || matchMedia('(pointer: coarse)').matches) return
  event.preventDefault()
  void submit()
})
addEventListener('keydown', (event) => event.key === 'Escape' && stop?.())
$('model').addEventListener('change', () => (localStorage.setItem(MODEL, $('model').value), describe()))
$('model').addEventListener('focus', () => look().catch(() => undefined))
$('scope').value = localStorage.getItem(SCOPE) ?? ''
$('scope').addEventListener('change', () => localStorage.setItem(SCOPE, $('scope').value))
$('device').addEventListener('click', () => {
  $('account').textContent = held.account || 'that the key is of'
  $('key').textContent = `${held.key.slice(0, 9)}…`
  say($('device-wrong'))
  $('about-device').showModal()
})
$('forget').addEventListener('click', async () => {
  try {
    await ask('join/forget', { key: held.key, body: {} })
  } catch (error) {
    if (error.status !== 401) return say($('device-wrong'), error)
  }
  keep(undefined)
  anew()
  $('about-device').close()
  welcome()
})

/** Whoever comes with an invite is asked; its secret leaves the address at once. */
function arrive() {
  const fragment = location.hash.slice(1)
  const found = fragment === '' ? undefined : new URLSearchParams(fragment)
  if (fragment !== '') history.replaceState(null, '', 'chat')
  if (found?.get('token')) {
    invite = found
    confirm()
  } else if (held) void open()
  else welcome()
}
addEventListener('hashchange', arrive)
arrive()
