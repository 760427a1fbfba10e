// Reads what a receipt says. Signatures are checked by `idlewatt receipt verify`, not here.

import type { Receipt, ReceiptFile } from './generated/control'

/** The signed content; `undefined` where it is not what this panel knows. */
export function content(file: ReceiptFile): Receipt | undefined {
  try {
    const bytes = Uint8Array.from(atob(file.receipt.payload), (char) => char.charCodeAt(0))
    const value: unknown = JSON.parse(new TextDecoder().decode(bytes))
    return value !== null && typeof value === 'object' && 'segments' in value ? (value as Receipt) : undefined
  } catch {
    return undefined
  }
}

/** The file as `idlewatt receipt verify` reads it. */
export const asFile = (file: ReceiptFile): string => JSON.stringify(file, null, 2) + '\n'
