// The panel on recorded answers: `npm run dev:fixture`, then `?world=away`, `live`, `mixed` or `fresh`, and `&link=lost`.

import '../src/app.css'

import { mount } from 'svelte'

import App from '../src/App.svelte'
import { FixtureBackend, worlds } from '../src/lib/backend/fixture'

const query = new URLSearchParams(location.search)
const world = worlds[(query.get('world') ?? 'away') as keyof typeof worlds]
const backend = new FixtureBackend(world, Date.now())
const target = document.getElementById('app')
if (target) mount(App, { target, props: { backend } })
if (query.get('link') === 'lost') setTimeout(() => backend.link('lost'), 300)
