// The operator's commands as a page. What opens it is kept for this tab only; every act is one command of the command
// line's, and what the page shows is asked anew after each.

import { $, ask, credits, el, energy, number, say } from './page.js'

const KEPT = 'idlewatt.admin'
const EARLIEST = 50
let session = sessionStorage.getItem(KEPT) ?? undefined

async function act(command, more = {}) {
  try {
    return await (await ask('admin/act', { key: session, body: { command, ...more } })).json()
  } catch (error) {
    if (error.status === 401) shut(error)
    throw error
  }
}

function shut(why) {
  session = undefined
  sessionStorage.removeItem(KEPT)
  $('open').hidden = $('close').hidden = true
  $('closed').hidden = false
  say($('closed-why'), why)
}

/** Does something, shows what came of it, and says what went wrong. */
async function attempt(work, done) {
  say($('wrong'))
  try {
    await work()
    await show()
    $('told').textContent = done
  } catch (error) {
    if (session === undefined) return
    say($('wrong'), error)
    $('wrong').scrollIntoView({ block: 'center' })
  }
}

/** Asks before something is done; gives the value of its field, `''` without one, or `undefined`. */
function sure({ title, about, yes, label, value }) {
  $('sure-title').textContent = title
  $('sure-about').textContent = about
  $('sure-yes').textContent = yes
  $('sure-field').hidden = label === undefined
  $('sure-label').textContent = label ?? ''
  $('sure-value').value = value ?? ''
  const dialog = $('sure')
  dialog.returnValue = ''
  dialog.showModal()
  return new Promise((settle) => {
    dialog.addEventListener('close', () => settle(dialog.returnValue === 'yes' ? $('sure-value').value : undefined), { once: true })
  })
}

/** Credits as people write them, in micro-credits. */
function micro(text) {
  if (!/^-?\d{1,9}([.,]\d{1,6})?$/.test(text.trim())) throw new Error(`“${text}” is no amount of credits: write it like 10 or 2.5, with at most six decimals.`)
  return Math.round(Number(text.trim().replace(',', '.')) * 1e6)
}

const day = (at) => (at === undefined || at === null ? '' : new Date(at).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' }))
const amount = (ucr) => credits(ucr).replace(/ credits?$/, '')
const action = (text, work) => el('button', { type: 'button', class: 'quiet', onclick: work }, text)

/** Fills a table: heads that begin with `#` are of figures. */
function fill(id, heads, rows, none) {
  const cell = (head, content) => el('td', { class: head.startsWith('#') ? 'n' : undefined }, ...[content].flat())
  $(id).replaceChildren(
    el('thead', {}, el('tr', {}, ...heads.map((head) => el('th', { scope: 'col', class: head.startsWith('#') ? 'n' : undefined }, head === '' ? el('span', { class: 'unseen' }, 'To do') : head.replace('#', ''))))),
    el('tbody', {}, ...(rows.length === 0
      ? [el('tr', {}, el('td', { colspan: String(heads.length), class: 'soft text' }, none))]
      : rows.map((row) => el('tr', {}, ...row.map((content, i) => cell(heads[i], content)))))),
  )
}

async function show() {
  const [{ accounts }, { groups }, { nodes }, { keys }, { strangers }, { audit }] = await Promise.all([
    act('account_list'), act('group_list'), act('node_list'), act('key_list'), act('strangers_show'), act('audit', { most: EARLIEST }),
  ])
  const people = accounts.filter(({ account }) => account !== 'issuance' && account !== 'fees')
  $('lead').textContent = `${people.length === 1 ? 'One account' : `${number(people.length)} accounts`}, ${nodes.length === 1 ? 'one node' : `${number(nodes.length)} nodes`}`
  fill('accounts', ['Account', 'Circle', '#Balance', '#Under way', '#May owe', ''], accounts.map((one) => [
    el('span', {}, one.account, one.suspended ? el('span', { class: 'soft' }, ' · suspended') : ''),
    one.group ?? '',
    amount(one.balance_ucr),
    amount(one.reserved_ucr),
    one.overdraft_ucr === null || one.overdraft_ucr === undefined ? 'no limit' : amount(one.overdraft_ucr),
    people.includes(one) ? el('div', { class: 'row' }, ...doings(one)) : el('span', { class: 'soft' }, one.account === 'fees' ? 'what the hub earned' : 'where granted credits come from'),
  ]), 'None yet.')
  fill('groups', ['Circle', '#May owe each', '#Together', 'Members'], groups.map((one) => [
    one.group, amount(one.overdraft_ucr), amount(one.balance_ucr),
    one.members.map(({ account, balance_ucr }) => `${account} ${amount(balance_ucr)}`).join(' · ') || el('span', { class: 'soft' }, 'nobody yet'),
  ]), 'None yet.')
  fill('nodes', ['Node', 'Name', 'Account', 'Program', 'Last came or went'], nodes.map((one) => [
    el('code', {}, one.node.slice(0, 12)), one.name ?? '', one.account, one.agent, day(one.last_seen),
  ]), 'A machine appears here once it has joined with an invite.')
  fill('keys', ['Key', 'Account', 'Made', 'By', '#Spent today', ''], keys.filter(({ revoked }) => !revoked).map((one) => [
    el('code', {}, `${one.key}…`), one.account, day(one.created), one.node ? 'its node' : 'invite or operator', amount(one.spent_today_ucr),
    el('div', { class: 'row' }, action('Revoke', () => revoke(one))),
  ]), 'None yet.')
  fill('audit', ['When', 'Who', 'What'], audit.toReversed().map((one) => [day(one.at), one.actor, el('code', {}, told(one.act))]), 'Nothing yet.')
  $('strangers').checked = strangers.are_let_in
  const chosen = $('invite').elements.group.value
  $('invite').elements.group.replaceChildren(el('option', { value: '' }, 'no circle'), ...groups.map(({ group }) => el('option', { value: group }, group)))
  $('invite').elements.group.value = groups.some(({ group }) => group === chosen) ? chosen : ''
  await month()
}

const told = (act) => Object.entries(act).map(([name, value]) => (name === 'command' ? value : `${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`)).join(' ')

function doings(one) {
  const { account } = one
  return [
    action('Invite', () => invite({ account, spends: true, group: one.group ?? null })),
    one.group ? '' : action('Credit', async () => {
      const text = await sure({ title: `Credit ${account}`, about: 'From issuance; a negative amount takes credits back. Every statement shows it as granted.', yes: 'Credit', label: 'Credits', value: '10' })
      if (text !== undefined) await attempt(async () => act('account_credit', { account, credits: micro(text) }), `${account} was credited.`)
    }),
    one.suspended
      ? action('Resume', () => attempt(() => act('account_resume', { account }), `${account} may ask again.`))
      : action('Suspend', async () => {
          const yes = await sure({ title: `Suspend ${account}?`, about: 'It may ask for nothing, and what runs for it is broken off. Its books stay, and it can be resumed.', yes: 'Suspend' })
          if (yes !== undefined) await attempt(() => act('account_suspend', { account }), `${account} is suspended.`)
        }),
  ]
}

async function revoke(one) {
  const yes = await sure({ title: `Revoke ${one.key}…?`, about: `The key of ${one.account} opens nothing from then on, and what runs for it is broken off. It cannot be taken back.`, yes: 'Revoke' })
  if (yes !== undefined) await attempt(() => act('key_revoke', { key: one.key }), 'The key is revoked.')
}

function invite(wanted) {
  return attempt(async () => {
    const { invite: made } = await act('invite_create', wanted)
    const svg = made.picture && picture(made.picture)
    const line = (label, text) => el('div', {}, el('p', { class: 'soft small' }, label), el('p', {}, el('code', {}, text)), el('p', {}, action('Copy', () => navigator.clipboard?.writeText(text))))
    $('made-title').textContent = `An invite for ${wanted.account}`
    $('made-picture').replaceChildren(...(svg ? [svg] : []))
    $('made-words').replaceChildren(
      el('p', {}, made.page
        ? 'A telephone scans the code to chat; a computer opens the link, or joins with the other one to lend its GPU. It lets one of them in, within 24 hours.'
        : 'A machine joins with it to lend its GPU and earn. It lets one in, within 24 hours.'),
      ...(made.page ? [line('For a browser', made.page)] : []),
      line('For Idlewatt: idlewatt join', made.invite),
    )
    $('made').hidden = false
    $('made').scrollIntoView({ block: 'start' })
  }, `An invite for ${wanted.account} was made.`)
}

function picture({ size, path }) {
  const make = (name, attributes) => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', name)
    for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value)
    return made
  }
  const svg = make('svg', { viewBox: `0 0 ${size} ${size}`, role: 'img', 'aria-label': 'The invite as a code to scan', 'shape-rendering': 'crispEdges' })
  svg.append(make('path', { d: path, fill: '#000' }))
  return svg
}

const asked = () => {
  const [year, of] = $('month').elements.month.value.split('-')
  return { account: null, month: `${year}-${of}` }
}

async function month() {
  const { statements } = await act('statement', asked())
  fill('statements', ['Account', 'Circle', '#Given', '#Taken', '#Earned', '#Paid', '#Granted', '#Balance', '#Measured'], statements.map(({ account, group, closing_ucr, ...tally }) => [
    account, group ?? '',
    number(tally.given_in + tally.given_out), number(tally.taken_in + tally.taken_out),
    amount(tally.earned_ucr), amount(tally.paid_ucr), amount(tally.granted_ucr), amount(closing_ucr),
    tally.given_out === 0 ? '' : tally.measured_out === 0 ? 'unknown' : `${energy(tally.measured_mj)}${tally.measured_out < tally.given_out ? ' of a part' : ''}`,
  ]), 'Nothing in this month.')
}

async function save(path, name) {
  try {
    const answer = await ask(path, { key: session, body: { command: 'statement', ...asked() } })
    const address = URL.createObjectURL(await answer.blob())
    el('a', { href: address, download: name }).click()
    URL.revokeObjectURL(address)
  } catch (error) {
    say($('wrong'), error)
  }
}

// The page

$('invite').addEventListener('submit', async (event) => {
  event.preventDefault()
  const { account, group, earns } = event.target.elements
  await invite({ account: account.value.trim(), spends: !earns.checked, group: group.value || null })
  account.value = ''
})
$('group').addEventListener('submit', (event) => {
  event.preventDefault()
  const { group, overdraft } = event.target.elements
  void attempt(async () => {
    await act('group_create', { group: group.value.trim(), overdraft: micro(overdraft.value) })
    group.value = ''
  }, 'The circle was made.')
})
$('strangers').addEventListener('change', async () => {
  const on = $('strangers').checked
  const yes = !on || (await sure({
    title: 'Let strangers in?',
    about: 'Everybody with a key may then ask the machines of hosts who answer anyone; those hosts can read what is asked. Nothing of it is kept.',
    yes: 'Let them in',
  })) !== undefined
  if (!yes) return void ($('strangers').checked = false)
  await attempt(() => act('strangers_set', { are_let_in: on }), on ? 'Strangers are let in.' : 'Strangers are not let in.')
})
$('month').addEventListener('submit', (event) => event.preventDefault())
$('month').elements.month.value = new Date().toISOString().slice(0, 7)
$('month').elements.month.addEventListener('change', () => month().catch((error) => say($('wrong'), error)))
$('csv').addEventListener('click', () => save('admin/statements', `statements-${asked().month}.csv`))
$('json').addEventListener('click', () => save('admin/act', `statements-${asked().month}.json`))
$('made-done').addEventListener('click', () => {
  $('made').hidden = true
  $('made-picture').replaceChildren()
  $('made-words').replaceChildren()
})
$('close').addEventListener('click', async () => {
  await ask('admin/close', { key: session, body: {} }).catch(() => undefined)
  shut()
})

async function arrive() {
  const code = new URLSearchParams(location.hash.slice(1)).get('code')
  if (location.hash !== '') history.replaceState(null, '', 'admin')
  if (code) {
    try {
      session = (await (await ask('admin/open', { body: { code } })).json()).session
      sessionStorage.setItem(KEPT, session)
    } catch (error) {
      return shut(error)
    }
  }
  if (session === undefined) return shut()
  $('closed').hidden = true
  $('open').hidden = $('close').hidden = false
  await attempt(async () => undefined, '')
}
addEventListener('hashchange', arrive)
void arrive()
