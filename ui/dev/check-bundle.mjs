// After a build: nothing recorded, nothing from elsewhere, nothing inline, and no more than it weighed when last judged.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'

const BUDGET = 100 * 1024
const dist = new URL('../dist/', import.meta.url).pathname
const files = readdirSync(dist, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name))

const faults = []
let packed = 0
for (const file of files) {
  const text = readFileSync(file, 'utf8')
  const name = file.slice(dist.length)
  packed += gzipSync(readFileSync(file)).length
  if (text.includes('idlewatt-fixture-mark')) faults.push(`${name} contains recorded answers`)
  if (/\b(?:src|href)="(?:https?:)?\/\//.test(text) || /@import\s+["'(]|url\(["']?(?:https?:|\/\/|data:)/.test(text)) {
    faults.push(`${name} loads something from elsewhere`)
  }
  if (name.endsWith('.html') && (/<script(?![^>]*\bsrc=)/.test(text) || /<style|\sstyle="|\son\w+="/.test(text))) {
    faults.push(`${name} has inline code or style, which the content security policy forbids`)
  }
  if (name.endsWith('.js') && /\beval\(|new Function\(/.test(text)) faults.push(`${name} evaluates text as code`)
}
if (packed > BUDGET) faults.push(`${packed} bytes packed are more than ${BUDGET}`)
console.log(`${files.length} files, ${(packed / 1024).toFixed(1)} KiB packed`)
for (const fault of faults) console.error(fault)
process.exitCode = faults.length > 0 ? 1 : 0
