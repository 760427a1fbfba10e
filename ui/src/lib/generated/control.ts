// Generated from crates/control by `IDLEWATT_WRITE_TYPES=1 cargo test -p idlewatt-control --features ts`.

/**
 * Who holds a cap, best first.
 */
export type Actuator = "hardware" | "duty_cycle" | "admission" | "nobody";

/**
 * The exact weights and how they run. *Declared* by the node that serves it; a signature proves who said so, never
 * that it is so.
 */
export type Artefact = {
/**
 * The model's public name, without quantisation: `smollm2-135m-instruct`. Lower case, no path.
 */
model: string,
/**
 * The quantisation, lower case: `q4_1`; `None` where the server does not say.
 */
quantisation?: string,
/**
 * Digest of the weights' file or manifest; `None` where it cannot be read.
 */
digest?: Digest,
/**
 * The model server: `llama.cpp`, `ollama`, `openai`.
 */
engine: string,
/**
 * The server's own version or build, as it states it.
 */
engine_build?: string, };

/**
 * Whether a machine that is to be kept from sleeping is.
 */
export type Awake = "held" | "released" | "refused";

/**
 * One phase of an answer.
 */
export type BenchPhase = {
/**
 * Speed, tokens a second × 1,000.
 */
milli_tokens_per_s: number,
/**
 * Energy a token, microjoules.
 */
uj_per_token?: number,
/**
 * Its error, microjoules.
 */
error_uj?: number, };

/**
 * The figures at one power limit. Means over the repeats; each error is the half width of their 95 % interval, with
 * the sensor's own error in it.
 */
export type BenchPoint = {
/**
 * The limit in force; `None` where the card does not tell.
 */
cap_mw?: Milliwatts,
/**
 * How often the workload was run.
 */
repeats: number,
/**
 * Reading the prompt.
 */
prefill: BenchPhase,
/**
 * Writing the answer.
 */
decode: BenchPhase,
/**
 * Mean power while it ran.
 */
mean_mw?: Milliwatts,
/**
 * Highest reading.
 */
peak_mw?: Milliwatts,
/**
 * Highest temperature, °C.
 */
temperature_c?: number,
/**
 * How the energy is known.
 */
label: Label, };

/**
 * One run of the published workload.
 */
export type BenchReport = {
/**
 * Which workload, with its version: `idlewatt-1`.
 */
workload: string,
/**
 * Idlewatt's version.
 */
version: string,
/**
 * When it began.
 */
started: UnixMillis,
/**
 * The cards' product names; empty where it ran on no card.
 */
gpus: Array<string>,
/**
 * The processor's product name, where it ran on no card.
 */
processor?: string,
/**
 * The model server's kind and version: `llama.cpp b6000`.
 */
server: string,
/**
 * What answered.
 */
artefact: Artefact,
/**
 * How energy was measured, for people; empty where nothing measured it.
 */
method: string,
/**
 * One a power limit, lowest first.
 */
points: Array<BenchPoint>, };

/**
 * What a service was *seen* to do in a live probe. Anything not seen is absent, never assumed.
 */
export type Capabilities = {
/**
 * Answers `/v1/chat/completions`.
 */
chat: boolean,
/**
 * Answers `/v1/completions`.
 */
completions: boolean,
/**
 * Answers `/v1/embeddings`.
 */
embeddings: boolean,
/**
 * Streams server-sent events.
 */
streaming: boolean,
/**
 * Stops generating when the connection closes.
 */
cancels: boolean,
/**
 * Returns usage on a stream when asked.
 */
usage: boolean,
/**
 * Returns token log-probabilities.
 */
logprobs: boolean,
/**
 * Calls tools.
 */
tools: boolean,
/**
 * Keeps to a JSON schema.
 */
json_schema: boolean,
/**
 * Goes on with a partial answer.
 */
continuation: Continuation, };

/**
 * One thing looked at.
 */
export type Check = {
/**
 * Which room: `gpu`, `power`, `presence`, `servers`, `networks`, `keys`, `store`.
 */
area: string,
/**
 * How it stands.
 */
level: CheckLevel,
/**
 * What was found.
 */
what: string,
/**
 * What to do, where there is something to do.
 */
do?: string, };

/**
 * How a check stands.
 */
export type CheckLevel = "good" | "note" | "warning" | "problem";

/**
 * For programs. New codes may be added; existing ones keep their meaning.
 */
export type Code = "bad_request" | "unauthorized" | "not_found" | "bad_value" | "local_only" | "bad_invite" | "invite_used" | "invite_expired" | "invite_foreign" | "wrong_hub_key" | "hub_down" | "keyring_locked" | "home_read_only" | "disk_full" | "home_taken" | "port_taken" | "bad_config" | "database_newer" | "server_failed" | "stopping" | "internal";

/**
 * A QR code as squares of one unit, its quiet margin included.
 */
export type CodePicture = {
/**
 * Units in width and height.
 */
size: number,
/**
 * The dark squares, as the `d` of an SVG path in a view box of that size: `M4 4h1v1h-1z…`.
 */
path: string, };

/**
 * One setting.
 */
export type ConfigEntry = {
/**
 * Dotted key.
 */
key: string,
/**
 * The value in force, as text.
 */
value: string,
/**
 * What it is without the host's choice.
 */
default: string,
/**
 * What it does, with unit and range.
 */
about: string,
/**
 * Whether only the command line may set it.
 */
local_only: boolean, };

/**
 * How a service was *seen* to go on with a partial answer; each includes what stands before it.
 */
export type Continuation = "none" | "text" | "ids";

/**
 * What happened, what it means, what to do, in that order.
 */
export type ControlError = {
/**
 * For programs.
 */
code: Code,
/**
 * What happened.
 */
what: string,
/**
 * What it means.
 */
why: string,
/**
 * What to do.
 */
do: string, };

/**
 * What became of one day's share windows. Shared, offline, slept, off and paused add up to the window.
 */
export type DayHours = {
/**
 * The local date: `2026-11-21`.
 */
day: string,
/**
 * How much of it was inside the share windows, ms; of a day that goes on, how much so far; of the first day, since the
 * first start.
 */
window_ms: number,
/**
 * Of that, shared, ms.
 */
shared_ms: number,
/**
 * Of that, ready, with no network reached, ms.
 */
offline_ms: number,
/**
 * Of that, slept by the machine, ms.
 */
slept_ms: number,
/**
 * Of that, not running at all, ms.
 */
off_ms: number,
/**
 * Of that, paused, by the reason that led, the longest first.
 */
paused: Array<PausedFor>,
/**
 * For people, where little was shared: "Your PC slept 5 h 40 of your 9 h window."
 */
sentence?: string,
/**
 * Whether keeping the machine awake while sharing would have helped, and is off.
 */
keep_awake_would_help: boolean, };

/**
 * A SHA-256 digest: `sha256:` and 64 hexadecimal digits.
 */
export type Digest = string;

/**
 * What `doctor` finds.
 */
export type Doctor = {
/**
 * The engine's version.
 */
version: string,
/**
 * One line each.
 */
checks: Array<Check>, };

/**
 * The endpoints that a node may be asked to call. Nothing else of a model server can be reached from a network.
 */
export type Endpoint = "chat_completions" | "completions" | "embeddings";

/**
 * Energy of one request, with how it is known.
 */
export type Energy = {
/**
 * Above what the loaded, idle machine would have used.
 */
marginal_mj?: Millijoules,
/**
 * With its share of the idle energy.
 */
total_mj?: Millijoules,
/**
 * At the wall, where a plug calibrates it.
 */
wall_mj?: Millijoules,
/**
 * Half width of the error, where measured.
 */
error_mj?: Millijoules,
/**
 * How it is known.
 */
label: Label, };

/**
 * Where shared energy went.
 */
export type EnergySplit = {
/**
 * Answering requests.
 */
answering: Millijoules,
/**
 * Waiting with a model loaded for sharing.
 */
waiting: Millijoules,
/**
 * Keeping the machine awake for sharing.
 */
awake: Millijoules, };

/**
 * A DSSE envelope with a Merkle path.
 */
export type Envelope = {
/**
 * What the payload is.
 */
payloadType: string,
/**
 * The exact bytes, base64.
 */
payload: string,
/**
 * Position under the root.
 */
index: number,
/**
 * Sibling hashes from the leaf up, hexadecimal; a level without a sibling is left out by the tree's shape.
 */
path: Array<string>,
/**
 * Leaves under the root.
 */
leaves: number,
/**
 * The signer.
 */
keyid: PublicKey,
/**
 * Signature over the root.
 */
sig: string, };

/**
 * One change. A listener that missed some asks for the whole again ([`Event::Resync`]).
 */
export type Event = { "type": "status", "value": Status } | { "type": "request", "value": RequestRow } | { "type": "sample", "value": Sample } | { "type": "services", "value": Array<Service> } | { "type": "networks", "value": Array<Network> } | { "type": "resync" };

/**
 * A card.
 */
export type Gpu = {
/**
 * The driver's stable id: `GPU-…`.
 */
id: string,
/**
 * Product name.
 */
name: string,
/**
 * Power now.
 */
power_mw?: Milliwatts,
/**
 * The cap that holds for it.
 */
cap_mw?: Milliwatts,
/**
 * VRAM in use, bytes.
 */
vram_used?: number,
/**
 * VRAM in all, bytes.
 */
vram_total?: number,
/**
 * Core temperature.
 */
temperature_c?: number,
/**
 * How the power is known.
 */
label: Label, };

/**
 * One card and what holds it.
 */
export type GpuPower = {
/**
 * As in the status; its `cap_mw` is the lowest limit in force.
 */
gpu: Gpu,
/**
 * Powered down by the system, and not woken to be looked at.
 */
asleep: boolean,
/**
 * Hottest spot, °C.
 */
hot_spot_c?: number,
/**
 * Fan, percent.
 */
fan_percent?: number,
/**
 * The host's cap: chosen, or 80 % of what the card was made for.
 */
user_cap_mw?: Milliwatts,
/**
 * Lowest cap that can be set: the card's, or 1 W where the governor holds it.
 */
min_cap_mw: Milliwatts,
/**
 * Highest cap that means anything: the card's own greatest limit, where it tells.
 */
max_cap_mw?: Milliwatts,
/**
 * What the card was made for.
 */
default_cap_mw?: Milliwatts,
/**
 * The limit that binds now.
 */
binding?: Limit,
/**
 * Who holds the cap.
 */
actuator: Actuator,
/**
 * For people: who holds the cap, why nothing better does, and how to get it.
 */
actuator_text: string,
/**
 * Learned power without a model, and with one loaded and no work.
 */
idle_mw?: Milliwatts,
/**
 * With a model loaded and no work.
 */
loaded_mw?: Milliwatts, };

/**
 * An invite to the host's own hub, in two forms that say the same. Either is a secret until it is used.
 */
export type HubInvite = {
/**
 * Opens Idlewatt, or is pasted into it: `idlewatt://join?…`.
 */
invite: string,
/**
 * Opens the hub's own page in a browser: what a phone scans.
 */
page: string,
/**
 * The page's address as a QR code.
 */
picture?: CodePicture, };

/**
 * How a segment of an answer was joined to the one before, or all of them: the weaker stands later.
 */
export type Joined = "single" | "ids" | "text";

/**
 * How a figure is known. Every energy and money figure that a person sees carries one.
 */
export type Label = "measured" | "estimated" | "unknown";

/**
 * The last time the GPU was given back.
 */
export type LastYield = {
/**
 * Why.
 */
cause: PauseCode,
/**
 * When the event was seen.
 */
seen: UnixMillis,
/**
 * From then until every shared connection to the model server was closed.
 */
closed_ms: number,
/**
 * From then until the VRAM was free, where it was to be freed.
 */
freed_ms?: number,
/**
 * Whether that was checked and found true.
 */
verified: boolean, };

/**
 * A limit with its reason.
 */
export type Limit = {
/**
 * Which.
 */
kind: LimitKind,
/**
 * What it leaves.
 */
cap_mw: Milliwatts,
/**
 * For people.
 */
text: string, };

/**
 * What can limit a card.
 */
export type LimitKind = "user_cap" | "machine_cap" | "temperature" | "hot_spot" | "fan" | "daily_energy" | "card";

/**
 * All cards together.
 */
export type MachinePower = {
/**
 * All cards, where each tells.
 */
gpus_mw?: Milliwatts,
/**
 * The machine at the wall, where a plug tells.
 */
wall_mw?: Milliwatts,
/**
 * `power.machine_cap`.
 */
cap_mw?: Milliwatts,
/**
 * `power.daily_energy`.
 */
daily_limit_mj?: Millijoules, };

/**
 * Money on a hub, in millionths of a credit. A credit has no value in any currency unless a host sets one.
 */
export type MicroCredits = number;

/**
 * Energy, in thousandths of a joule. 1 Wh = 3,600,000 mJ.
 */
export type Millijoules = number;

/**
 * Power, in thousandths of a watt.
 */
export type Milliwatts = number;

/**
 * What a model used and earned on a card over a stretch of time.
 */
export type ModelEnergy = {
/**
 * Public model name, with quantisation.
 */
model: string,
/**
 * The card's id; `None` where it is not known, or on none.
 */
gpu?: string,
/**
 * Requests.
 */
requests: number,
/**
 * Prompt tokens.
 */
tokens_in: number,
/**
 * Completion tokens.
 */
tokens_out: number,
/**
 * What answering took, with its share of the idle power.
 */
energy_mj?: Millijoules,
/**
 * Energy a completion token, microjoules.
 */
uj_per_token?: number,
/**
 * Half width of its error, microjoules; `None` where it was not measured.
 */
error_uj?: number,
/**
 * How the energy is known.
 */
label: Label,
/**
 * Earned.
 */
earned_ucr: MicroCredits,
/**
 * Earned, in the host's currency.
 */
gross?: Money,
/**
 * What the energy cost, at the price that held when it was used; only of what had one.
 */
cost?: Money,
/**
 * Of the energy, what is not in `cost`: used while no price was set, or paid in another currency.
 */
unpriced_mj?: Millijoules,
/**
 * Gross less cost, where both are known and no energy is without a price.
 */
net?: Money, };

/**
 * A model file on this machine that a llama-server of the node's own could load.
 */
export type ModelFile = {
/**
 * Stable on this node; names the file without its path.
 */
id: string,
/**
 * Public model name with quantisation.
 */
model: string,
/**
 * Where it is, for the host's eyes only.
 */
path: string,
/**
 * Whose it is: `LM Studio`, `Hugging Face cache`, `Ollama`, `your folder`.
 */
source: string,
/**
 * All its parts, bytes.
 */
size: number,
/**
 * The longest context it was made for, tokens.
 */
context?: number,
/**
 * How it would be loaded under the limits in force: "all 32 layers on the GPU, 2 × 8,192 tokens, 6.1 GB of VRAM".
 */
plan: string,
/**
 * Whether it can be loaded so.
 */
fits: boolean,
/**
 * Whether it is the one that `managed.model` names.
 */
chosen: boolean, };

/**
 * Something that happened to a request.
 */
export type Moment = {
/**
 * When.
 */
at: UnixMillis,
/**
 * What.
 */
kind: MomentKind, };

/**
 * Kinds of moments.
 */
export type MomentKind = "received" | "started" | "first_token" | "ended" | "signed" | "posted";

/**
 * An amount in a currency, in millionths of its main unit.
 */
export type Money = {
/**
 * Millionths of the main unit.
 */
micros: number,
/**
 * ISO 4217: `EUR`.
 */
currency: string, };

/**
 * A network joined.
 */
export type Network = {
/**
 * Stable on this node.
 */
id: string,
/**
 * `hub`.
 */
kind: string,
/**
 * What it calls itself.
 */
name: string,
/**
 * Its address.
 */
url: string,
/**
 * The account this node earns for there.
 */
account?: string,
/**
 * Connection.
 */
state: NetworkState,
/**
 * Why it is not connected, or why no work comes, for people.
 */
reason?: string,
/**
 * Since when the state holds.
 */
since: UnixMillis,
/**
 * When the last request came from it.
 */
last_request?: UnixMillis,
/**
 * Requests served today.
 */
requests_today: number,
/**
 * Earned today.
 */
earned_today_ucr: MicroCredits,
/**
 * Statements that the network has not settled yet.
 */
unsettled: number, };

/**
 * How a network's connection stands.
 */
export type NetworkState = "connecting" | "connected" | "waiting" | "refused";

/**
 * Something that wants a person.
 */
export type Notice = {
/**
 * What happened.
 */
what: string,
/**
 * What it means.
 */
why: string,
/**
 * What to do.
 */
do: string, };

/**
 * How an answer ended.
 */
export type Outcome = "complete" | "cancelled" | "yielded" | "failed";

/**
 * What the policy says of the time ahead, if whoever is here leaves now and nothing but time changes.
 */
export type Outlook = {
/**
 * Stretches of one state each, the one of now first, without gaps.
 */
stretches: Array<Stretch>, };

/**
 * A hub of the host's own, and the key with which the host's devices use it.
 */
export type OwnHub = {
/**
 * Base URL for any OpenAI SDK.
 */
url: string,
/**
 * A consumer's key of the host's account.
 */
key: string, };

/**
 * One reason to be paused. The facts that go with it (since when, which app) are the policy's.
 */
export type PauseCode = "paused_by_host" | "person_here" | "game" | "full_screen" | "listed_app" | "in_call" | "gpu_in_use" | "memory_short" | "cannot_see_input" | "outside_window" | "settling" | "on_battery" | "lid_closed" | "metered" | "price" | "asleep" | "too_hot" | "too_loud" | "daily_energy" | "host_load" | "cap_unenforceable" | "own_use" | "nothing_to_share" | "no_network" | "cannot_keep" | "stopping";

/**
 * How long a pause lasts.
 */
export type PauseFor = { "until": "resumed" } | { "until": "seconds",
/**
 * 1 to 31 days.
 */
seconds: number, } | { "until": "at",
/**
 * When.
 */
at: UnixMillis, } | { "until": "tomorrow" };

/**
 * How long one reason held.
 */
export type PausedFor = {
/**
 * Which.
 */
code: PauseCode,
/**
 * How long, ms.
 */
ms: number, };

/**
 * Power and energy of this machine: now, today, this month.
 */
export type Power = {
/**
 * One sentence for people: what is drawn, and what holds it.
 */
sentence: string,
/**
 * The cards.
 */
gpus: Array<GpuPower>,
/**
 * All of them together, and the machine around them.
 */
machine: MachinePower,
/**
 * Every power sensor found.
 */
sensors: Array<Sensor>,
/**
 * Since local midnight.
 */
today: Today,
/**
 * This calendar month.
 */
month: Today,
/**
 * What each model used and earned this month.
 */
models: Array<ModelEnergy>,
/**
 * What `idlewatt bench` measured here, newest first.
 */
benches: Array<BenchReport>,
/**
 * Whether a token earns more than its energy costs right now; `None` without a value of a credit, a tariff and
 * measured tokens.
 */
profitable?: boolean, };

/**
 * Whether somebody is there.
 */
export type Presence = "headless" | "here" | "away" | "blind";

/**
 * A price, in micro-credits a million tokens: `1_000_000` is one credit a million tokens.
 */
export type Price = number;

/**
 * A program that runs here, to choose from.
 */
export type Program = {
/**
 * Its name, as `share.apps` would name it.
 */
name: string,
/**
 * Whether it has a window, uses a GPU, or is otherwise likely to be meant.
 */
likely: boolean, };

/**
 * An Ed25519 public key of a node or a hub: 43 characters of unpadded base64url.
 */
export type PublicKey = string;

/**
 * One pause reason with its sentence.
 */
export type Reason = {
/**
 * Which.
 */
code: PauseCode,
/**
 * For people.
 */
text: string,
/**
 * Since when.
 */
since: UnixMillis,
/**
 * Until when, where known.
 */
until?: UnixMillis, };

/**
 * What the hub says of one request. Its id is the request's.
 */
export type Receipt = {
/**
 * The request.
 */
id: RequestId,
/**
 * The hub.
 */
hub: PublicKey,
/**
 * A pseudonym of the consumer's account: the same for the same account on this hub, and nothing else.
 */
consumer: string,
/**
 * The model that was asked for.
 */
model: string,
/**
 * Which endpoint.
 */
endpoint: Endpoint,
/**
 * How it ended.
 */
outcome: Outcome,
/**
 * SHA-256 of the salt, so that a file with another salt is refused.
 */
salt_digest: Digest,
/**
 * SHA-256(salt ‖ the body as the consumer sent it).
 */
request_commitment: Digest,
/**
 * SHA-256(salt ‖ the concatenated content as the hub delivered it; an embedding's whole body).
 */
response_commitment: Digest,
/**
 * Who answered, in order.
 */
segments: Array<Segment>,
/**
 * Nodes that got the request too and delivered nothing of the answer: they failed before its first byte, or another
 * began sooner. They are paid nothing.
 */
also_asked?: Array<PublicKey>,
/**
 * How segments were joined: `text` where one of them was joined by its text.
 */
joined: Joined,
/**
 * The agreed price.
 */
price: Price,
/**
 * What the consumer paid.
 */
cost: MicroCredits,
/**
 * The hub's part of it.
 */
fee: MicroCredits,
/**
 * What is known of the artefact: `declared`, or `spot-checked` with how often and when.
 */
verification: string,
/**
 * When the request was admitted.
 */
started: UnixMillis,
/**
 * When this was written.
 */
issued: UnixMillis,
/**
 * Digest of the payload of the receipt before this one on the same hub; `None` for the first.
 */
previous?: Digest, };

/**
 * A receipt as a file: the envelope, and the salt with which its holder can recompute the commitments.
 */
export type ReceiptFile = {
/**
 * The signed receipt.
 */
receipt: Envelope,
/**
 * The salt; only the consumer gets it.
 */
salt?: string, };

/**
 * Everything that can be asked of an engine.
 */
export type Request = { "type": "status" } | { "type": "doctor" } | { "type": "services" } | { "type": "rescan" } | { "type": "share",
/**
 * The service's id, model name, or an unambiguous part of it.
 */
service: string,
/**
 * On or off.
 */
on: boolean,
/**
 * The price, where it is to change.
 */
price?: Price, } | { "type": "networks" } | { "type": "join",
/**
 * `idlewatt://join?…`
 */
invite: string, } | { "type": "leave",
/**
 * Which.
 */
hub: string, } | { "type": "pause" } & PauseFor | { "type": "resume" } | { "type": "share_now",
/**
 * 1 to 31 days.
 */
seconds: number, } | { "type": "schedule" } | { "type": "preview",
/**
 * Values by key, as text; an empty one is the default.
 */
settings: { [key in string]: string }, } | { "type": "programs" } | { "type": "give_back" } | { "type": "yields",
/**
 * At most this many, 1 to 1,000.
 */
limit: number, } | { "type": "may_unload",
/**
 * The service's id, model name, or an unambiguous part of it.
 */
service: string,
/**
 * Whether it may.
 */
on: boolean, } | { "type": "share_with",
/**
 * The service's id, model name, or an unambiguous part of it.
 */
service: string,
/**
 * The widest.
 */
scope: Scope, } | { "type": "requests",
/**
 * At most this many, 1 to 1,000.
 */
limit: number,
/**
 * Only those that started before.
 */
before?: UnixMillis, } | { "type": "request_detail",
/**
 * Which.
 */
id: RequestId, } | { "type": "receipt",
/**
 * Which.
 */
id: RequestId, } | { "type": "samples",
/**
 * Since when.
 */
since: UnixMillis, } | { "type": "last_session" } | { "type": "days",
/**
 * How many, 1 to 366.
 */
count: number, } | { "type": "hours",
/**
 * At most this many days, 1 to 366; there are none of before the first start.
 */
days: number, } | { "type": "power" } | { "type": "keep_bench",
/**
 * What was measured.
 */
report: BenchReport,
/**
 * Send it, signed with this node's key, to every hub joined.
 */
publish: boolean, } | { "type": "model_files" } | { "type": "run_model",
/**
 * Its id or name, or an unambiguous part of it; none stops what runs.
 */
id?: string, } | { "type": "set_server_key",
/**
 * The server's address, or a part of its name, such as `lm-studio`.
 */
server: string,
/**
 * The key; none forgets it.
 */
key?: Secret, } | { "type": "config" } | { "type": "set_config",
/**
 * Dotted key: `share.idle_after`.
 */
key: string,
/**
 * As text; empty resets to the default.
 */
value: string, } | { "type": "reload_config" } | { "type": "own_endpoint" } | { "type": "panel" } | { "type": "own_hub",
/**
 * On or off; as it is, where left out.
 */
on?: boolean, } | { "type": "invite_to_own_hub" } | { "type": "stop" };

/**
 * One request with what happened when.
 */
export type RequestDetail = {
/**
 * As listed.
 */
row: RequestRow,
/**
 * In order.
 */
timeline: Array<Moment>,
/**
 * Readings while it ran.
 */
samples: Array<Sample>, };

/**
 * The id of one request, allocated by the hub at admission: `req_` and 32 hexadecimal digits. The receipt's id too.
 */
export type RequestId = string;

/**
 * One request, as listed.
 */
export type RequestRow = {
/**
 * Its id, and its receipt's.
 */
id: RequestId,
/**
 * Which network it came from.
 */
network: string,
/**
 * Model as offered.
 */
model: string,
/**
 * What answered.
 */
artefact: Artefact,
/**
 * When it came.
 */
started: UnixMillis,
/**
 * Time to the first piece.
 */
ttft_ms?: number,
/**
 * Whole time so far.
 */
duration_ms: number,
/**
 * Prompt tokens.
 */
tokens_in: number,
/**
 * Completion tokens.
 */
tokens_out: number,
/**
 * How it ended.
 */
outcome: RowOutcome,
/**
 * Whether it was the host's own account that asked.
 */
own: boolean,
/**
 * Earned; `None` until the network has settled it.
 */
earned_ucr?: MicroCredits,
/**
 * Joules.
 */
energy: Energy,
/**
 * What its energy cost, at the price that held while it ran.
 */
cost?: Money,
/**
 * Earned, in the host's currency.
 */
gross?: Money,
/**
 * Gross less cost, where both are known.
 */
net?: Money,
/**
 * Segments of the answer that this node produced.
 */
segments: number,
/**
 * Digest of the receipt, once there is one.
 */
receipt?: string, };

/**
 * The answer to a [`Request`].
 */
export type Response = { "type": "status", "value": Status } | { "type": "doctor", "value": Doctor } | { "type": "services", "value": Array<Service> } | { "type": "schedule", "value": Schedule } | { "type": "preview", "value": Outlook } | { "type": "networks", "value": Array<Network> } | { "type": "yields", "value": Array<Yield> } | { "type": "requests", "value": Array<RequestRow> } | { "type": "request_detail", "value": RequestDetail } | { "type": "receipt", "value": ReceiptFile } | { "type": "samples", "value": Array<Sample> } | { "type": "last_session", "value": Session | null } | { "type": "days", "value": { [key in string]: Today } } | { "type": "hours", "value": Array<DayHours> } | { "type": "programs", "value": Array<Program> } | { "type": "power", "value": Power } | { "type": "published", "value": Array<string> } | { "type": "model_files", "value": Array<ModelFile> } | { "type": "config", "value": Array<ConfigEntry> } | { "type": "own_endpoint", "value": {
/**
 * Base URL for any OpenAI SDK.
 */
url: string,
/**
 * Its key.
 */
key: string, } } | { "type": "panel", "value": {
/**
 * Good once, for ten minutes.
 */
url: string, } } | { "type": "own_hub", "value": OwnHub | null } | { "type": "hub_invite", "value": HubInvite } | { "type": "done" } | { "type": "error", "value": ControlError };

/**
 * How a request ended on this node.
 */
export type RowOutcome = "running" | "complete" | "cancelled" | "yielded" | "failed" | "lost";

/**
 * One reading.
 */
export type Sample = {
/**
 * When.
 */
at: UnixMillis,
/**
 * Which card.
 */
gpu: string,
/**
 * Power.
 */
power_mw?: Milliwatts,
/**
 * The cap then.
 */
cap_mw?: Milliwatts,
/**
 * Temperature.
 */
temperature_c?: number,
/**
 * Shared requests running then.
 */
running: number, };

/**
 * Everything that the Schedule page shows beside the settings themselves.
 */
export type Schedule = {
/**
 * The share windows painted on a week, Monday first: for each day 48 half hours, `true` where sharing is allowed for
 * all of it.
 */
week: Array<Array<boolean>>,
/**
 * Whether the grid says all that `share.windows` says: no window begins or ends between two half hours.
 */
exact: boolean,
/**
 * The rules in force as sentences, the most telling first.
 */
rules: Array<string>,
/**
 * What happens now and next under the settings in force.
 */
outlook: Outlook,
/**
 * The host's time zone: `Europe/Berlin`.
 */
zone: string, };

/**
 * How far something reaches. Each holds the ones before it, so the narrower of two is the smaller.
 */
export type Scope = "own" | "circle" | "public";

/**
 * What nobody but its receiver may see: it is not written out for debugging.
 */
export type Secret = string;

/**
 * One node's part in a receipt.
 */
export type Segment = {
/**
 * The node.
 */
node: PublicKey,
/**
 * What it declared to serve.
 */
artefact: Artefact,
/**
 * How it was joined to the segment before; `single` for the first.
 */
joined?: Joined,
/**
 * Tokens as stated, or as counted where there is no statement. The prompt of a later segment holds what was delivered
 * before; the consumer pays for neither again.
 */
usage: Usage,
/**
 * What the node's account earned.
 */
earned: MicroCredits,
/**
 * The node's own signed word, or why there is none.
 */
statement: Signed, };

/**
 * A power sensor.
 */
export type Sensor = {
/**
 * Stable on this machine.
 */
id: string,
/**
 * For people.
 */
name: string,
/**
 * What its figure covers.
 */
scope: SensorScope,
/**
 * How it measures, for people.
 */
method: string,
/**
 * How often its figure changes, as seen here.
 */
refresh_ms?: number,
/**
 * What it leaves out, for people.
 */
leaves_out?: string,
/**
 * Power now.
 */
power_mw?: Milliwatts, };

/**
 * What a power sensor's figure covers. Figures of different scopes are never added.
 */
export type SensorScope = "board" | "package" | "rail" | "machine" | "wall";

/**
 * One model offered by one server.
 */
export type Service = {
/**
 * Stable on this node.
 */
id: string,
/**
 * Public model name, with quantisation where known.
 */
model: string,
/**
 * The server's kind and address, for the host's eyes only: `llama.cpp · 127.0.0.1:8080`.
 */
server: string,
/**
 * Whether the host shares it.
 */
shared: boolean,
/**
 * Whether it answers now.
 */
reachable: boolean,
/**
 * Whether it was probed and may be offered.
 */
ready: boolean,
/**
 * Whether the model is loaded.
 */
warm: boolean,
/**
 * Whether it may be unloaded to give memory back although sharing did not load it: the host said so.
 */
may_unload: boolean,
/**
 * Whom the host answers with it; strangers only where `share.strangers` is set.
 */
scope: Scope,
/**
 * Whether it is loaded again for whoever asks for it once it was unloaded. Where not, only sharing or the host brings
 * it back, and the host's other programs are refused until then.
 */
loads_on_request: boolean,
/**
 * What it serves.
 */
artefact: Artefact,
/**
 * Requests at once.
 */
slots: number,
/**
 * Of these, in use by shared requests.
 */
busy: number,
/**
 * Tokens.
 */
context: number,
/**
 * What the host asks.
 */
price: Price,
/**
 * What it was seen to do.
 */
capabilities: Capabilities,
/**
 * Decode speed in the probe, tokens a second × 1,000.
 */
milli_tokens_per_s?: number,
/**
 * Why it is not ready, for people.
 */
problem?: string, };

/**
 * One stretch of sharing: what happened while the host was away.
 */
export type Session = {
/**
 * When sharing began.
 */
started: UnixMillis,
/**
 * When it ended; `None` while it goes on.
 */
ended?: UnixMillis,
/**
 * Why it ended.
 */
ended_by?: Reason,
/**
 * Totals of the session.
 */
totals: Today,
/**
 * Highest power over ten seconds, all cards.
 */
peak_10s_mw?: Milliwatts,
/**
 * Cap in force at its end, all cards.
 */
cap_mw?: Milliwatts, };

/**
 * A node's statement, or why it is missing.
 */
export type Signed = { "signed": Envelope } | { "unsigned": string };

/**
 * Whether the node shares.
 */
export type State = "sharing" | "yielding" | "paused" | "offline";

/**
 * Everything that `idlewatt status --json` prints.
 */
export type Status = {
/**
 * The engine's version.
 */
version: string,
/**
 * The interface's version, [`crate::CONTROL_VERSION`].
 */
control: number,
/**
 * Whether it shares.
 */
state: State,
/**
 * One sentence for people: what is happening and why.
 */
sentence: string,
/**
 * Since when the state holds.
 */
since: UnixMillis,
/**
 * Every reason that holds, the first to end first.
 */
reasons: Array<Reason>,
/**
 * Until when the host's "share now" puts idleness and hours aside.
 */
share_now_until?: UnixMillis,
/**
 * Whether a person can sit at this machine, and whether one does.
 */
presence: Presence,
/**
 * The cards.
 */
gpus: Array<Gpu>,
/**
 * The services.
 */
services: Array<Service>,
/**
 * The networks.
 */
networks: Array<Network>,
/**
 * Since local midnight.
 */
today: Today,
/**
 * Whether the machine is kept from sleeping; `None` where the host does not want that (`share.keep_awake`).
 */
awake?: Awake,
/**
 * Requests being answered now.
 */
running: number,
/**
 * The last time the GPU was given back.
 */
last_yield?: LastYield,
/**
 * Things that want a person: a locked keyring, a hub that refuses.
 */
attention: Array<Notice>, };

/**
 * A stretch of time in which nothing changes.
 */
export type Stretch = {
/**
 * Its beginning.
 */
from: UnixMillis,
/**
 * Its end; `None` where nothing that is known ends it.
 */
until?: UnixMillis,
/**
 * What the node would do.
 */
state: State,
/**
 * One sentence for people.
 */
sentence: string,
/**
 * Why it would not share.
 */
reasons: Array<Reason>, };

/**
 * Totals of one day.
 */
export type Today = {
/**
 * Requests answered or begun.
 */
requests: number,
/**
 * Prompt tokens.
 */
tokens_in: number,
/**
 * Completion tokens.
 */
tokens_out: number,
/**
 * Earned.
 */
earned_ucr: MicroCredits,
/**
 * All energy used for sharing; `None` when nothing measures it.
 */
energy_mj?: Millijoules,
/**
 * Its parts; they add up to it.
 */
energy_split: EnergySplit,
/**
 * How it is known.
 */
energy_label: Label,
/**
 * What the energy cost, at the price that held when it was used; only of what had one.
 */
cost?: Money,
/**
 * Of the energy, what is not in `cost`: used while no price was set, or paid in another currency.
 */
unpriced_mj?: Millijoules,
/**
 * What was earned in the host's currency, where a credit has a value.
 */
gross?: Money,
/**
 * Gross less cost, where both are known and no energy is without a price.
 */
net?: Money, };

/**
 * A moment, in milliseconds since 1970-01-01 00:00 UTC.
 */
export type UnixMillis = number;

/**
 * Tokens of one request or segment.
 */
export type Usage = {
/**
 * Prompt tokens.
 */
prompt: number,
/**
 * Completion tokens.
 */
completion: number,
/**
 * Where the counts come from; the weaker of the two.
 */
source: UsageSource, };

/**
 * Where a token count comes from.
 */
export type UsageSource = "server" | "counted" | "estimated";

/**
 * One time the GPU was given back.
 */
export type Yield = {
/**
 * Why.
 */
cause: PauseCode,
/**
 * For people: "GPU back in 0.31 s: a game started."
 */
sentence: string,
/**
 * When the event was seen.
 */
seen: UnixMillis,
/**
 * Shared requests that were ended for it.
 */
requests: number,
/**
 * From the event until every shared connection to a model server was closed, ms.
 */
closed_ms: number,
/**
 * From the event until the VRAM was free, ms; `None` where it was not to be freed, or is not yet.
 */
freed_ms?: number,
/**
 * Whether the freeing was checked and found true.
 */
verified: boolean,
/**
 * What was done for it, in order.
 */
steps: Array<YieldStep>, };

/**
 * One step of giving the GPU back.
 */
export type YieldStep = {
/**
 * After the event, ms.
 */
at_ms: number,
/**
 * For people: "llama.cpp ended", "Ollama says the model is unloaded, but 6.2 GB are still held".
 */
text: string, };
