-- Moments are milliseconds since 1970 UTC; days are local dates (2026-11-21); energy is in millijoules, power in
-- milliwatts, money in micro-credits, prices in micro-credits a million tokens.

CREATE TABLE requests (
    id          TEXT PRIMARY KEY,
    network     TEXT NOT NULL,
    model       TEXT NOT NULL,
    artefact    TEXT NOT NULL,             -- JSON
    own         INTEGER NOT NULL,
    day         TEXT NOT NULL,             -- of `received`
    session     INTEGER,
    outcome     TEXT NOT NULL,
    received    INTEGER NOT NULL,
    started     INTEGER,                   -- handed to the model server
    first_token INTEGER,
    ended       INTEGER,
    signed      INTEGER,
    posted      INTEGER,
    tokens_in   INTEGER NOT NULL DEFAULT 0, -- the node's count; the network's, once it has settled
    tokens_out  INTEGER NOT NULL DEFAULT 0,
    energy      TEXT NOT NULL DEFAULT '{"label":"unknown"}', -- JSON
    segments    INTEGER NOT NULL DEFAULT 0,
    earned      INTEGER,                   -- once settled
    receipt     TEXT
) WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (received);
CREATE INDEX requests_by_network ON requests (network, received);
CREATE INDEX requests_running ON requests (outcome) WHERE outcome = 'running';

-- Signed statements that no network has settled yet.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY,
    request  TEXT NOT NULL UNIQUE,
    network  TEXT NOT NULL,
    envelope TEXT NOT NULL                 -- JSON
);
CREATE INDEX outbox_by_network ON outbox (network, position);

-- What each network settled for this node, by the network's own numbering.
CREATE TABLE postings (
    network    TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    request    TEXT NOT NULL,
    at         INTEGER NOT NULL,
    tokens_in  INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    earned     INTEGER NOT NULL,
    signed     INTEGER NOT NULL,           -- whether our statement is in the receipt
    receipt    TEXT NOT NULL,              -- JSON: the hub's signed receipt
    PRIMARY KEY (network, seq)
) WITHOUT ROWID;

CREATE INDEX postings_by_request ON postings (request);

CREATE TABLE sessions (
    id      INTEGER PRIMARY KEY,
    started INTEGER NOT NULL,
    ended   INTEGER,
    reason  TEXT,                          -- JSON; NULL where the process died
    peak    INTEGER,
    cap     INTEGER
);

-- Sums of the above, kept in the same transactions. `scope` is day, session or network; `key` the date, the session's
-- number, or 'network date'.
CREATE TABLE totals (
    scope      TEXT NOT NULL,
    key        TEXT NOT NULL,
    requests   INTEGER NOT NULL DEFAULT 0,
    tokens_in  INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    earned     INTEGER NOT NULL DEFAULT 0,
    answering  INTEGER NOT NULL DEFAULT 0,
    waiting    INTEGER NOT NULL DEFAULT 0,
    awake      INTEGER NOT NULL DEFAULT 0,
    label      TEXT,                       -- NULL until some energy is known
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

CREATE TABLE samples (
    at          INTEGER NOT NULL,
    gpu         TEXT NOT NULL,
    power       INTEGER,
    cap         INTEGER,
    temperature INTEGER,
    running     INTEGER NOT NULL,
    PRIMARY KEY (at, gpu)
) WITHOUT ROWID;

CREATE TABLE networks (
    id      TEXT PRIMARY KEY,
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    urls    TEXT NOT NULL,                 -- JSON, best first
    key     TEXT NOT NULL,                 -- the network's public key
    account TEXT,
    joined  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE services (
    id     TEXT PRIMARY KEY,
    shared INTEGER NOT NULL,
    price  INTEGER NOT NULL,
    probe  TEXT                            -- JSON, as the engine wrote it
) WITHOUT ROWID;

CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
