// What all browser tests share: one Chromium, pictures, and axe.

import { mkdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

import { chromium } from 'playwright-core'

const pictures = process.env.SCREENSHOT_DIR
if (pictures) mkdirSync(pictures, { recursive: true })
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-background-networking', '--disable-component-update', '--no-first-run'],
  })

export async function picture(page, name) {
  if (pictures) await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true })
}

/** What axe finds wrong, as lines. */
export async function faults(page) {
  // Evaluated by the debugger's own way in: the page's content security policy lets no foreign script run.
  await page.evaluate(axe)
  return page.evaluate(async () => {
    const { violations } = await window.axe.run(document)
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) => `${id}: ${html} ${any[0]?.message ?? ''}`))
  })
}

/** How far the page scrolls sideways, in pixels; 0 where it fits. */
export const sideways = (page) => page.evaluate(() => Math.max(0, document.documentElement.scrollWidth - innerWidth))
