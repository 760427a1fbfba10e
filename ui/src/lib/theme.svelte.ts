// Light, dark, or as the system says. Kept on this machine, in this browser.

const KEY = 'idlewatt.theme'
export const themes = ['system', 'light', 'dark'] as const
export type Theme = (typeof themes)[number]

class Look {
  theme: Theme = $state(themes.find((theme) => theme === localStorage.getItem(KEY)) ?? 'system')

  constructor() {
    this.#apply()
  }

  choose(theme: Theme): void {
    this.theme = theme
    localStorage.setItem(KEY, theme)
    this.#apply()
  }

  #apply(): void {
    if (this.theme === 'system') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = this.theme
  }
}

export const look = new Look()
