// `power.cap` as the settings write it: nothing, watts for every card (`280`), or card by card, each named by the
// beginning of its id (`GPU-5d2c=280, GPU-91aa=200`).

type Entry = [id: string, watts: string]

const listed = (text: string): Entry[] =>
  text.includes('=')
    ? text.split(',').map((part) => {
        const at = part.indexOf('=')
        return [part.slice(0, at).trim(), part.slice(at + 1).trim()]
      })
    : []

/** What the host chose for this card, as written; `undefined` where nobody chose. */
export function chosen(text: string, card: string): string | undefined {
  if (!text.includes('=')) return text.trim() || undefined
  return listed(text).find(([id]) => card.startsWith(id))?.[1]
}

/**
 * `text` with this card's cap changed, or taken back where it is `undefined`. What was chosen for others holds, for
 * those too that are not here now.
 */
export function withCap(text: string, cards: string[], card: string, watts: number | undefined): string {
  const wanted = watts === undefined ? undefined : String(watts)
  const others = cards.filter((one) => one !== card)
  const absent = listed(text).filter(([id]) => !cards.some((one) => one.startsWith(id)))
  if (others.length === 0 && absent.length === 0) return wanted ?? ''
  return [...cards.map((one): [string, string | undefined] => [one, one === card ? wanted : chosen(text, one)]), ...absent]
    .filter((entry): entry is Entry => entry[1] !== undefined)
    .map(([id, w]) => `${id}=${w}`)
    .join(', ')
}

/** What somebody typed as watts; `undefined` where it is no power. A comma may stand for the point. */
export function parseWatts(text: string): number | undefined {
  const clean = text.trim().replace(/\s*w$/i, '').replace(',', '.')
  return /^\d{1,6}(\.\d{1,3})?$/.test(clean) ? Number(clean) : undefined
}
