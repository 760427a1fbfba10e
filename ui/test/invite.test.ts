import { expect, test } from 'vitest'

import { readInvite } from '../src/lib/invite'

const good = 'idlewatt://join?hub=https%3A%2F%2Fgarage.example%3A4181%2F&key=abc&token=s3cret'

test('an invite says where it leads', () => {
  expect(readInvite(` ${good}\n`)).toMatchObject({ hub: 'garage.example:4181', key: 'abc', local: false })
  expect(readInvite('idlewatt://join?hub=http://127.0.0.1:4181/&key=k&token=t')).toMatchObject({ local: true })
})

test.each([
  ['https://example.com', 'bad_invite'],
  ['', 'bad_invite'],
  ['idlewatt://join?hub=https://h/&key=k', 'bad_invite'],
  ['idlewatt://join?hub=nonsense&key=k&token=t', 'bad_invite'],
])('%s is no invite', (text, code) => expect(readInvite(text)).toMatchObject({ code }))

test('a bad invite is never repeated: it may hold a secret', () => {
  expect(JSON.stringify(readInvite('idlewatt://join?hub=https://h/&token=s3cret'))).not.toContain('s3cret')
})
