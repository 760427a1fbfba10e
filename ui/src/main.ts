import './app.css'

import { mount } from 'svelte'

import App from './App.svelte'
import { HttpBackend } from './lib/backend/http'
import { inWindow, TauriBackend } from './lib/backend/tauri'

const target = document.getElementById('app')
if (target) mount(App, { target, props: { backend: inWindow() ? new TauriBackend() : new HttpBackend() } })
